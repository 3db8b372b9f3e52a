"""Champions come and go, with real models in a real store."""

import json

import pytest

from heliograph.pipeline.promotion.ledger import find_ledger, open_ledger
from heliograph.pipeline.promotion.pinned_sets import pin_set
from heliograph.pipeline.promotion.promote import history, promote, rollback
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.rules import AnyRule, Behaviour, Better, NotWorse, Size
from heliograph.pipeline.translation.translate import Translator
from tests.pipeline.conftest import PAIRS, MakeModel
from tests.pipeline.model_store import Store

MANY = PAIRS * 5
ANY_GAIN: list[AnyRule] = [Better(margin=0, p=1)]


def test_only_a_better_version_becomes_champion(store: Store, make_model: MakeModel) -> None:
    weak = store.register(make_model(3, known=4), MANY)
    strong = store.register(make_model(1), MANY)
    gain = store.bleu(strong) - store.bleu(weak)
    assert gain > 1

    first = promote("tiny", version=weak)
    assert (first.promoted, first.champion, first.previous) == (True, weak, None)
    assert "first champion" in first.reason

    too_little = promote("tiny", rules=[Better(margin=gain + 0.01)])
    assert (too_little.promoted, too_little.champion, too_little.previous) == (False, weak, weak)
    assert store.alias("champion") == weak

    better = promote("tiny", rules=[Better(margin=gain - 0.01)])
    assert (better.promoted, better.champion, better.previous) == (True, strong, weak)
    assert store.alias("champion") == strong
    for figure in (f"{store.bleu(weak):.2f}", f"{store.bleu(strong):.2f}", f"{gain:+.2f}"):
        assert figure in better.reason

    worse = promote("tiny", version=weak, rules=[Better(margin=0)])
    assert (worse.promoted, store.alias("champion")) == (False, strong)
    again = promote("tiny")
    assert (again.promoted, again.reason) == (False, f"version {strong} is the champion already")
    assert [record.promoted for record in history("tiny")] == [True, False, True, False]


def test_an_equal_version_stays_out(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1))
    store.register(make_model(2))
    assert store.bleu(1) == store.bleu(2)
    promote("tiny", version=1)
    assert not promote("tiny", rules=ANY_GAIN).promoted


def test_both_are_scored_on_the_challenger_s_set(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(3, known=4), PAIRS[:4])  # on which it is perfect
    store.register(make_model(1), MANY)
    assert store.bleu(1) == pytest.approx(100)
    promote("tiny", version=1)
    decision = promote("tiny", version=2)
    assert decision.promoted
    assert decision.verdicts[0]["figures"]["champion"] < 90
    assert decision.verdicts[0]["figures"]["sentences"] == len(MANY)


def test_a_champion_translates_once(
    store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(make_model(3, known=4), PAIRS[:4])
    store.register(make_model(1), MANY)
    promote("tiny", version=1)
    assert not promote("tiny", version=2, rules=[Better(margin=90)]).promoted
    monkeypatch.setattr(Translator, "load", lambda *_: pytest.fail("was translated already"))
    assert promote("tiny", version=2).promoted


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("heliograph.pipeline.registry.contender.ENGINE", "another"),
        ("heliograph.pipeline.translation.workplace.Workplace.device", "cuda"),
    ],
    ids=["engine", "device"],
)
def test_another_engine_or_device_translates_anew(
    store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, what: str, other: str
) -> None:
    """A champion that was scored on a GPU is not held against what a CPU makes (issue 17, 3)."""
    store.register(make_model(3, known=4), PAIRS[:4])
    store.register(make_model(1), MANY)
    promote("tiny", version=1)
    monkeypatch.setattr(what, other)
    kept = len([*store.folder.rglob("translations/*/*.json")])
    assert promote("tiny", version=2).promoted
    assert len([*store.folder.rglob("translations/*/*.json")]) == kept + 2  # of both sides


def test_translations_that_were_changed_are_not_believed(
    store: Store, make_model: MakeModel
) -> None:
    store.register(make_model(3, known=4), MANY)
    store.register(make_model(1), MANY)
    promote("tiny", version=1)
    kept = [*store.folder.rglob("translations/version-2/*.json")]
    assert len(kept) == 1
    kept[0].write_text(json.dumps(["nothing"] * len(MANY)))
    assert promote("tiny", version=2).promoted


def test_the_gate_is_the_recipe_s_or_the_caller_s(store: Store, make_model: MakeModel) -> None:
    store.recipe += "registry: {gate: [{kind: size, megabytes: 0.001}]}\n"
    store.register(make_model(1))
    refused = promote("tiny")
    assert not refused.promoted
    assert "size" in refused.reason
    assert promote("tiny", rules=[Size(megabytes=10), Behaviour(numbers=None)]).promoted


def test_another_set_is_pinned_by_name(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1, known=2), PAIRS[:2])
    store.register(make_model(3, known=4), MANY)
    promote("tiny", version=1)
    ledger = open_ledger(store.client, "tiny")
    pin_set(store.client, ledger, "first", PAIRS[:2], "a file", "source→target")
    with pytest.raises(RequestError, match=r"'frist', which is not pinned.*mean 'first'"):
        promote("tiny", rules=[NotWorse(set="frist")])
    decision = promote("tiny", rules=[NotWorse(set="first"), *ANY_GAIN], dry_run=True)
    assert decision.verdicts[0]["figures"]["sentences"] == 2

    pin_set(store.client, ledger, "first", PAIRS[:2], "another file", "source→target")
    with pytest.raises(RequestError, match="'first' is pinned already, with 2 sentences"):
        pin_set(store.client, ledger, "first", PAIRS[:3], "a file", "source→target")
    with pytest.raises(RequestError, match="is empty"):
        pin_set(store.client, ledger, "none", [], "a file", "source→target")
    pin_set(store.client, ledger, "back", PAIRS, "a file", "target→source")
    with pytest.raises(RequestError, match="is target→source, and version 2 translates source→"):
        promote("tiny", rules=[NotWorse(set="back")])


def test_a_dry_run_changes_nothing(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1))
    decision = promote("tiny", dry_run=True)
    assert decision.promoted
    assert decision.champion is None
    assert "dry run" in decision.reason
    assert store.client.get_registered_model("tiny").aliases == {"challenger": 1}
    assert find_ledger(store.client, "tiny") is None
    assert history("tiny") == []


def test_force_is_recorded_as_such(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1), MANY)
    store.register(make_model(3, known=4), MANY)
    promote("tiny", version=1)
    decision = promote("tiny", version=2, force="<b>the demo</b> needs it")
    assert (decision.promoted, store.alias("champion")) == (True, 2)
    record = history("tiny")[-1]
    assert (record.kind, record.why) == ("force", "<b>the demo</b> needs it")
    assert [verdict["passed"] for verdict in record.verdicts] == [False]
    [page] = store.folder.rglob(f"decisions/{record.id}/report.html")
    assert "&lt;b&gt;the demo" in page.read_text()
    for why in ("", " ", "x" * 501):
        with pytest.raises(RequestError, match="a reason has 1 to 500 characters"):
            promote("tiny", version=1, force=why)


def test_the_record_is_in_ledger_tag_and_report(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(3, known=4), MANY)
    store.register(make_model(1), MANY)
    promote("tiny", version=1)
    promote("tiny", version=2)
    record = history("tiny")[-1]
    assert (record.number, record.kind, record.champion, record.previous) == (2, "gate", 2, 1)
    assert record.who.keys() >= {"user", "host"}
    assert record.evaluation["evaluation"] == store.tags(2)["heliograph.evaluation.digest"]
    assert json.loads(store.tags(2)["heliograph.decision.000002"])["id"] == record.id
    [written] = store.folder.rglob(f"decisions/{record.id}/decision.json")
    whole = json.loads(written.read_text())
    assert (whole["number"], whole["reason"]) == (2, record.reason)
    page = written.with_name("report.html").read_text()
    assert "Biggest wins" in page
    assert PAIRS[5][1] in page, "which only the new champion knows"
    for loads in ("src=", "href=", "url(", "<script", "@import"):
        assert loads not in page


def test_rollback_goes_back_step_by_step(store: Store, make_model: MakeModel) -> None:
    for known in (2, 4, 6):
        store.register(make_model(1, known))
        assert promote("tiny", rules=ANY_GAIN).promoted
    for expected, before in [(2, 3), (1, 2)]:
        decision = rollback("tiny")
        assert (decision.promoted, decision.champion, decision.previous) == (True, expected, before)
        assert store.alias("champion") == expected
    with pytest.raises(RequestError, match="no champion to go back to: version 1 is the first"):
        rollback("tiny")
    assert store.alias("champion") == 1
    assert rollback("tiny", version=3, why="it was better").champion == 3
    assert rollback("tiny").champion == 1
    assert [record.kind for record in history("tiny")] == ["gate"] * 3 + ["rollback"] * 4


def test_a_deleted_version_is_not_rolled_back_to(store: Store, make_model: MakeModel) -> None:
    for known in (2, 4, 6):
        store.register(make_model(1, known))
        promote("tiny", rules=ANY_GAIN)
    store.client.delete_model_version("tiny", "2")
    assert rollback("tiny").champion == 1


def test_who_was_rolled_back_is_no_candidate_any_more(store: Store, make_model: MakeModel) -> None:
    for known in (2, 4):
        store.register(make_model(1, known))
        promote("tiny", rules=ANY_GAIN)
    assert store.alias("challenger") == 2
    rollback("tiny")
    assert store.client.get_registered_model("tiny").aliases == {"champion": 1}
    with pytest.raises(RequestError, match=r"version 2 of 'tiny' was rolled back.*--version 2`"):
        promote("tiny")
    assert promote("tiny", version=2, rules=ANY_GAIN).champion == 2
    assert "champion already" in promote("tiny").reason
    rollback("tiny")
    store.register(make_model(1))
    assert promote("tiny", rules=ANY_GAIN).champion == 3
    store.register(make_model(1, 3))
    rollback("tiny")
    assert store.alias("challenger") == 4, "the candidate is another than who was rolled back"
    assert [record.version for record in history("tiny")] == [1, 2, 1, 2, 1, 3, 1]


def test_after_a_deleted_champion_nobody_is_the_first(store: Store, make_model: MakeModel) -> None:
    for known in (4, 6):
        store.register(make_model(1, known))
        promote("tiny", rules=ANY_GAIN)
    store.client.delete_model_version("tiny", "2")
    with pytest.raises(RequestError, match=r"version 1 .*nobody is now: `heliograph rollback"):
        promote("tiny", version=1)
    store.register(make_model(3, known=2))
    weaker = promote("tiny")
    assert (weaker.promoted, weaker.champion) == (False, None)
    assert "version 2 is champion no more, it was held against version 1" in weaker.reason
    store.register(make_model(1))
    better = promote("tiny", rules=ANY_GAIN)
    assert (better.promoted, better.verdicts[0]["figures"]["champion"]) == (True, store.bleu(1))
    assert rollback("tiny").champion == 1
    for version in (4, 1):
        store.client.delete_model_version("tiny", str(version))
    none_left = promote("tiny", version=3)
    assert none_left.promoted
    assert "after version 1; version 1 is champion no more" in none_left.reason


def test_a_champion_from_before_the_ledger_is_kept(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1, 2), MANY)
    store.register(make_model(1), MANY)
    store.client.set_registered_model_alias("tiny", "champion", "1")
    decision = promote("tiny", version=2)
    assert (decision.champion, decision.previous) == (2, 1)
    assert [record.kind for record in history("tiny")] == ["found", "gate"]
    assert rollback("tiny").champion == 1


def test_the_gate_says_what_it_cannot_judge(store: Store, make_model: MakeModel) -> None:
    with pytest.raises(RequestError, match="'tiny' does not exist; there is none yet"):
        promote("tiny")
    store.register(make_model(1))
    with pytest.raises(RequestError, match="'tini' does not exist; did you mean 'tiny'"):
        promote("tini")
    with pytest.raises(RequestError, match="did you mean 'tiny'"):
        rollback("tini")
    with pytest.raises(RequestError, match="has no version '7'; valid: 1"):
        promote("tiny", version=7)
    with pytest.raises(RequestError, match="no champion to go back to: it never had one"):
        rollback("tiny")
    foreign = store.client.create_model_version("tiny", str(make_model(1)))
    with pytest.raises(RequestError, match="version 2 of 'tiny' has no evaluation set"):
        promote("tiny", version=int(foreign.version))
    assert history("tiny") == []


def test_a_version_that_is_not_what_was_registered(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1, 2), MANY)
    store.register(make_model(1), MANY)
    promote("tiny", version=1)
    for path in store.folder.glob("artifacts/**/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(RequestError, match=r"not what was registered: model\.safetensors was"):
        promote("tiny", version=2)
    with pytest.raises(RequestError, match="not what was registered"):
        promote("tiny", version=2, force="whatever")
    assert store.alias("champion") == 1


def test_deleted_runs_are_named_with_the_way_back(store: Store, make_model: MakeModel) -> None:
    store.register(make_model(1))
    store.client.delete_run(store.run_id)
    with pytest.raises(RequestError, match=f"deleted.*restore --run-id {store.run_id}"):
        promote("tiny")
    store.client.restore_run(store.run_id)
    promote("tiny")
    ledger = find_ledger(store.client, "tiny")
    assert ledger is not None
    store.client.delete_run(ledger.run_id)
    with pytest.raises(RequestError, match=f"restore --run-id {ledger.run_id}"):
        promote("tiny")
    experiment = store.client.get_run(ledger.run_id).info.experiment_id
    store.client.delete_experiment(experiment)
    with pytest.raises(RequestError, match=f"restore --experiment-id {experiment}"):
        history("tiny")
    store.client.restore_experiment(experiment)
    store.client.restore_run(ledger.run_id)
    assert len(history("tiny")) == 1
