"""How often the gate promotes by luck: two models that differ by their seed only.

    python benchmarks/gate.py                                  # the demo's recipe, 300 steps each
    python benchmarks/gate.py recipes/multi30k.yaml data.train=…  # any recipe and overrides

Each of the two is trained by a job of its own and translates the evaluation set. Then, in each of
many draws, a coin per sentence decides which model's translation counts as the challenger's and
which as the champion's: neither side is better, whatever the two models are, and every promotion is
a mistake. The gate asks for p < 0.05 and no margin, so 5 % is the nominal share of promotions.
sacrebleu's p is one-sided: the same share again is found to be worse with p < 0.05.

The test draws sentences, not seeds: of two seeds one may well be the better model, which is what is
printed first.
"""

import argparse
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

if __package__ in (None, ""):  # Run as a file: the repository's root is not on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from heliograph.jobs.command import mute_libraries, protect_local_ray
from heliograph.pipeline.request.rules import Better
from heliograph.pipeline.scoring.evaluate import Pairs
from heliograph.pipeline.scoring.gate import Case, judge

P = 0.05
SHORT = ["train.epochs=1000", "train.steps=300", "registry.promote=false"]


@dataclass(frozen=True)
class Said:
    """A contender whose translations are known."""

    hypotheses: list[str]

    def translations(self, pairs: Pairs) -> list[str]:
        assert len(pairs) == len(self.hypotheses)
        return self.hypotheses

    def speed(self, sources: Sequence[str]) -> float:
        raise NotImplementedError("no rule about speed is simulated")

    def size(self) -> int:
        raise NotImplementedError("no rule about size is simulated")


@dataclass(frozen=True)
class Shares:
    """Of all draws."""

    promoted: float
    worse: float
    """With p < 0.05, too."""


def simulate(
    first: Sequence[str], second: Sequence[str], pairs: Pairs, draws: int, samples: int = 1000
) -> Shares:
    """What the gate makes of two models that are equally good.

    Args:
        first: one model's translations of the pairs.
        second: the other's.
        samples: bootstrap resamples in each draw.
    """
    coin = random.Random(1)
    rule = Better(margin=0, p=P, samples=samples)
    promoted = worse = 0
    for _ in range(draws):
        sides = [
            (one, other) if coin.random() < 0.5 else (other, one)
            for one, other in zip(first, second, strict=True)
        ]
        challenger, champion = (Said(list(side)) for side in zip(*sides, strict=True))
        (verdict,) = judge([rule], Case(challenger, champion, pairs))
        promoted += verdict.passed
        worse += verdict.figures["gain"] < 0 and verdict.figures["p"] < P
    return Shares(promoted / draws, worse / draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="recipes/demo.yaml")
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    mute_libraries()
    protect_local_ray()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        overrides = [*SHORT, *arguments.overrides, f"storage={folder}/storage"]
        uris = [train(arguments.recipe, [*overrides, f"seed={seed}"]) for seed in (1, 2)]
        report(uris, arguments.draws)


def train(recipe: str, overrides: list[str]) -> str:
    """The MODEL that comes of it."""
    import heliograph

    result = heliograph.train(heliograph.load_recipe(recipe, overrides))
    return str(result["model"]["uri"])


def report(uris: list[str], draws: int) -> None:
    import heliograph
    from heliograph.pipeline.registry.registry import fetch_model
    from heliograph.pipeline.scoring.evaluate import read_evaluation_set

    pairs = read_evaluation_set(fetch_model(uris[0]))
    first, second = (heliograph.translate(uri, [source for source, _ in pairs]) for uri in uris)
    (verdict,) = judge([Better(margin=0, p=P)], Case(Said(first), Said(second), pairs))
    shares = simulate(first, second, pairs, draws)
    print(f"seed 1 beside seed 2: {verdict.reason}")
    chance = 1.96 * math.sqrt(P * (1 - P) / draws)
    print(
        f"{draws} draws of {len(pairs)} sentences: {shares.promoted:.1%} promoted, "
        f"{shares.worse:.1%} worse with p < {P}; nominal is {P:.1%} ± {chance:.1%} of each"
    )
    print(json.dumps({"seeds": verdict.figures, "draws": draws, **vars(shares)}))


if __name__ == "__main__":
    main()
