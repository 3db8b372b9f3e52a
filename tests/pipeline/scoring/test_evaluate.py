import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.request.decoding import BleuTokenizer, Evaluate
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.scoring.evaluate import (
    check_tokenizer,
    evaluation_digest,
    looks_tokenized,
    read_evaluation_set,
    score,
    word_cutter,
    write_evaluation_set,
)

HYPOTHESES = ["The dog barks loudly at night .", "A tree has rough bark.", "", "Zwei Männer lesen"]
REFERENCES = [
    "The dog barks at night .",
    "The tree has rough bark.",
    "Nothing.",
    "Zwei Männer lesen.",
]

# Parquet, and files in general, hold no lone surrogates.
text = st.text(st.characters(exclude_categories=["Cs"]))


def test_scores_are_those_of_sacrebleu_s_command_line(tmp_path: Path) -> None:
    (tmp_path / "references").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "hypotheses").write_text("\n".join(HYPOTHESES) + "\n")
    done = subprocess.run(
        f"{sys.executable} -m sacrebleu references -i hypotheses -m bleu chrf --width 10".split(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    bleu, chrf = json.loads(done.stdout)

    scores = score(HYPOTHESES, REFERENCES)

    assert (round(scores.bleu, 10), round(scores.chrf, 10)) == (bleu["score"], chrf["score"])
    assert scores.signatures == {"bleu": bleu["signature"], "chrf": chrf["signature"]}
    assert "case:mixed" in scores.signatures["bleu"]
    assert "tok:13a" in scores.signatures["bleu"]
    assert scores.sentences == 4
    assert scores.hypotheses == HYPOTHESES


def test_bleu_is_cased_and_counts_punctuation() -> None:
    reference = ["The old dog barks at the tall tree."]
    assert score(reference, reference).bleu == pytest.approx(100)
    assert score([reference[0].lower()], reference).bleu < 100
    assert score([reference[0].removesuffix(".")], reference).bleu < 100


def test_nothing_is_printed_about_text_that_looks_tokenized(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    score(["A dog barks ."] * 200, ["A dog barks ."] * 200)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(RequestError, match="evaluation set is empty"):
        score([], [])


def test_empty_translations_score_nothing() -> None:
    assert score(["", ""], ["A dog.", "A tree."]).bleu == 0


@given(pairs=st.lists(st.tuples(text, text), max_size=5))
def test_a_pinned_set_comes_back_as_it_was(
    pairs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    digest = write_evaluation_set(folder, pairs)
    assert read_evaluation_set(folder) == pairs
    assert digest == evaluation_digest(pairs)
    assert [path.name for path in folder.iterdir()] == ["evaluation.parquet"]


@given(first=st.lists(st.tuples(text, text)), second=st.lists(st.tuples(text, text)))
def test_digests_are_equal_exactly_where_the_pairs_are(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    assert (evaluation_digest(first) == evaluation_digest(second)) == (first == second)


def test_digests_see_where_a_text_ends() -> None:
    assert evaluation_digest([("ab", "c")]) != evaluation_digest([("a", "bc")])
    assert evaluation_digest([("a", "b"), ("c", "d")]) != evaluation_digest(
        [("a", "b\nc"), ("", "d")]
    )


def test_the_digest_is_of_the_text_and_not_of_the_file(tmp_path: Path) -> None:
    pairs = [("A dog.", "Ein Hund."), ("A tree.", "Ein Baum.")]
    digest = write_evaluation_set(tmp_path, pairs)
    table = pq.read_table(tmp_path / "evaluation.parquet")
    large = table.cast(pa.schema([("source", pa.large_string()), ("target", pa.large_string())]))
    pq.write_table(large, tmp_path / "evaluation.parquet", compression="zstd", row_group_size=1)
    assert evaluation_digest(read_evaluation_set(tmp_path)) == digest


def test_a_folder_without_a_pinned_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no pinned evaluation set \(evaluation.parquet\)"):
        read_evaluation_set(tmp_path)


@pytest.mark.parametrize(
    ("reference", "cutter"),
    [
        ("Ein Hund läuft über die Straße.", "13a"),
        ("собака бежит", "13a"),
        ("개가 달린다", "13a"),  # Korean has spaces
        ("कुत्ता सड़क पर दौड़ता है", "13a"),
        ("一只狗在街上跑。", "zh"),
        ("犬が通りを走っている。", "ja-mecab" if find_spec("MeCab") else "char"),
        ("สุนัขวิ่งบนถนน", "char"),
        ("DNA 和 RNA 是核酸，存在于所有生物体内。", "zh"),
        ("He said 你好 to everybody in the room.", "13a"),
        ("…", "13a"),
    ],
)
def test_words_are_cut_as_the_script_of_the_references_wants_it(
    reference: str, cutter: str
) -> None:
    assert word_cutter([reference]) == cutter
    assert f"tok:{cutter}" in score([reference], [reference]).signatures["bleu"]


def test_references_that_look_tokenized_are_told() -> None:
    assert looks_tokenized(["A dog .", "Is it ?", "A cat."]) is not None
    assert looks_tokenized(["A dog .", "A cat."]) is None
    assert looks_tokenized([]) is None


def test_a_chinese_sentence_that_is_nearly_right_has_a_score() -> None:
    """By 13a it is one word, and wrong (issue 15, 12)."""
    assert score(["一只黑狗在街上跑。"] * 5, ["一只白狗在街上跑。"] * 5).bleu > 30


def test_a_tokenizer_that_is_named_is_used() -> None:
    hypotheses, references = ["A black dog runs ."] * 5, ["A white dog runs."] * 5
    found = {name: score(hypotheses, references, name) for name in ("13a", "none", "char")}
    assert [f"tok:{name}" in each.signatures["bleu"] for name, each in found.items()] == [True] * 3
    assert found["none"].bleu < found["13a"].bleu < found["char"].bleu


@pytest.mark.parametrize("name", ["ja-mecab", "ko-mecab"])
def test_a_tokenizer_whose_package_is_missing_is_refused_before_training(
    name: BleuTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("MeCab", "mecab_ko"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ja_mecab", raising=False)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ko_mecab", raising=False)
    check_tokenizer(Evaluate(tokenize="zh"))
    with pytest.raises(RequestError, match=f"evaluate.tokenize '{name}'.*sacrebleu.{name[:2]}"):
        check_tokenizer(Evaluate(tokenize=name))
