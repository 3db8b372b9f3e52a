import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gate import simulate
from heliograph.pipeline.scoring.significance import compare

REFERENCES = [f"The {n} old dogs bark loudly at the tall tree number {n} ." for n in range(40)]
GOOD = [text.replace("loudly", "often") if n % 3 else text for n, text in enumerate(REFERENCES)]
POOR = [text.replace("tall tree", "house") if n % 2 else text for n, text in enumerate(GOOD)]

# Two of the mistakes less.
NEAR = [GOOD[0], REFERENCES[1], REFERENCES[2], *GOOD[3:]]


@pytest.mark.parametrize(("metric", "name"), [("bleu", "BLEU"), ("chrf", "chrF2")])
def test_the_test_is_that_of_sacrebleu_s_command_line(
    tmp_path: Path, metric: str, name: str
) -> None:
    for file, lines in (("references", REFERENCES), ("champion", GOOD), ("challenger", NEAR)):
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    command = f"{sys.executable} -m sacrebleu references -i champion challenger -m {metric} "
    done = subprocess.run(
        (command + "--paired-bs --paired-bs-n 300 --format text --width 6").split(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = compare(NEAR, GOOD, REFERENCES, metric, samples=300)
    # As JSON, sacrebleu 2.6 cannot write its own confidence interval.
    shown = r"challenger .*?([\d.]+) \(([\d.]+) . ([\d.]+)\).*\(p = ([\d.]+)\)"
    match = re.search(shown, done.stdout, flags=re.DOTALL)
    assert match is not None, done.stdout
    assert f"{found.challenger:.6f}" == match[1]
    assert f"{found.challenger_ci:.6f}" == match[3]
    assert f"{found.p:.4f}" == match[4]
    assert found.p > 0.01, "else any difference would pass here"
    assert name in done.stdout
    assert found.gain > 0
    assert "seed:12345" in found.signature
    assert "bs:300" in found.signature


def test_the_same_twice_is_no_difference() -> None:
    found = compare(GOOD, GOOD, REFERENCES, samples=100)
    assert found.gain == 0
    assert (found.challenger, found.challenger_ci) == (found.champion, found.champion_ci)


def test_few_sentences_prove_little() -> None:
    one_better = [GOOD[0], REFERENCES[1], *GOOD[2:]]
    assert compare(GOOD, POOR, REFERENCES).p < 0.01
    assert compare(one_better, GOOD, REFERENCES).p > 0.05


def test_of_two_that_are_equally_good_few_are_promoted() -> None:
    """Two models of 60 % and of other mistakes; each draw mixes them, so that neither is better."""
    draw = random.Random(3)
    texts = REFERENCES * 3
    first, second = (
        [text if draw.random() < 0.4 else text.replace(word, "very") for text in texts]
        for word in ("loudly", "tall")
    )
    shares = simulate(first, second, list(zip(texts, texts, strict=True)), draws=200, samples=100)
    # 5 % are nominal; fewer than one in a thousand times it is outside of this in 200 draws.
    assert 0.005 <= shares.promoted <= 0.11
    assert 0.005 <= shares.worse <= 0.11
