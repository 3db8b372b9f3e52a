"""A decision as one page of HTML: figures, verdicts, and the sentences that were won and lost.

Everything from outside is escaped, and the page loads nothing.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from heliograph.pipeline.promotion.ledger import Record
from heliograph.pipeline.registry.provenance import CODE_TAGS, describe_code
from heliograph.pipeline.scoring.evaluate import Pairs, sentence_scores
from heliograph.pipeline.scoring.significance import compare, confidence

SHOWN = 10
"""Sentences of each kind."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1.5rem }
th, td { border-bottom: 1px solid #ccc; padding: 0.3rem 0.6rem; text-align: left;
  vertical-align: top }
.yes { color: #176b2c } .no { color: #a11 } .quiet { color: #666 } .figure { white-space: nowrap }
"""


def write_report(
    record: Record,
    name: str,
    pairs: Pairs,
    challenger: Sequence[str] | None,
    champion: Sequence[str] | None,
) -> str:
    """The page.

    Args:
        challenger: its translations of `pairs`; None: it was not judged.
        champion: likewise; None: there was none.
    """
    answer = "became" if record.promoted else "did not become"
    parts = [
        f"<h1>Version {record.version} of {escape(name)} {answer} champion</h1>",
        f"<p>{escape(record.reason[:1].upper() + record.reason[1:])}.</p>",
        _table(["", ""], [(key, escape(value)) for key, value in _facts(record)]),
    ]
    if record.verdicts:
        rows = [
            (
                escape(verdict["rule"]["kind"]),
                _answer(verdict["passed"]),
                escape(verdict["reason"]),
                f'<span class="quiet">{escape(json.dumps(verdict["rule"]))}</span>',
            )
            for verdict in record.verdicts
        ]
        parts += ["<h2>Rules</h2>", _table(["rule", "verdict", "figures", "asked for"], rows)]
    if challenger is not None:
        references = [target for _, target in pairs]
        parts += [
            f"<h2>Scores on {len(pairs):,} sentences, with 95 % confidence intervals</h2>",
            _scores(record, references, challenger, champion),
        ]
        if champion is not None:
            parts += _sentences(_sides(record), pairs, challenger, champion)
    title = escape(f"{name}: decision {record.number}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    yield "decision", f"{record.number} ({record.kind}), {record.id}"
    yield "when", datetime.fromtimestamp(record.time, UTC).isoformat(timespec="seconds")
    yield "who", ", ".join(f"{key} {value}" for key, value in record.who.items())
    if record.why is not None:
        yield "why", record.why
    yield "champion before", "none" if record.previous is None else str(record.previous)
    for key, digest in record.evaluation.items():
        yield "evaluation set" if key == "evaluation" else f"evaluation set {key}", digest
    details = dict(record.details)
    if decoding := details.pop("decoding", None):
        yield "decoding", ", ".join(f"{key} {value}" for key, value in decoding.items())
    if any(tag in details for tag in CODE_TAGS):
        yield "code", describe_code(details)
    for key, value in details.items():
        if key not in CODE_TAGS:
            yield key, str(value)


def _sides(record: Record) -> list[str]:
    """What the columns of the two are called; of a first champion there is one."""
    champion = [] if record.previous is None else [f"version {record.previous}, the champion"]
    return [f"version {record.version}", *champion]


def _scores(
    record: Record,
    references: Sequence[str],
    new: Sequence[str],
    old: Sequence[str] | None,
) -> str:
    tokenize = record.details.get("decoding", {}).get("tokenize")
    rows = []
    for metric, title in (("bleu", "BLEU"), ("chrf", "chrF")):
        if old is None:
            figures = [_score(*confidence(new, references, metric, tokenize=tokenize))]
        else:
            found = compare(new, old, references, metric, tokenize=tokenize)
            figures = [
                _score(found.challenger, found.challenger_ci),
                _score(found.champion, found.champion_ci),
                f'<span class="figure">{found.gain:+.2f}, p = {found.p:.4f}</span>',
                f'<span class="quiet">{escape(found.signature)}</span>',
            ]
        rows.append([title, *figures])
    more = [] if old is None else ["difference", "sacrebleu's signature"]
    return _table(["metric", *_sides(record), *more], rows)


def _score(score: float, interval: float) -> str:
    return f'<span class="figure">{score:.2f} ± {interval:.2f}</span>'


def _sentences(
    sides: Sequence[str], pairs: Pairs, new: Sequence[str], old: Sequence[str]
) -> list[str]:
    references = [target for _, target in pairs]
    scores = zip(sentence_scores(new, references), sentence_scores(old, references), strict=True)
    gains = [after - before for after, before in scores]
    order = sorted(range(len(pairs)), key=lambda number: gains[number])
    parts = []
    for title, numbers in (
        ("Biggest wins", [n for n in reversed(order) if gains[n] > 0]),
        ("Biggest losses", [n for n in order if gains[n] < 0]),
    ):
        rows = [
            (f"{gains[n]:+.1f}", *map(escape, (*pairs[n], new[n], old[n]))) for n in numbers[:SHOWN]
        ]
        head = ["chrF", "source", "reference", *sides]
        parts += [f"<h2>{title}</h2>", _table(head, rows) if rows else "<p>None.</p>"]
    return parts


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of cells that are HTML already."""
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    titles = "".join(f"<th>{cell}</th>" for cell in head) if any(head) else ""
    return f"<table>{titles and f'<tr>{titles}</tr>'}{''.join(lines)}</table>"


def _answer(passed: Any) -> str:
    return '<span class="yes">passed</span>' if passed else '<span class="no">failed</span>'
