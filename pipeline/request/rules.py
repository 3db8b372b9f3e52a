"""The gate's rules: what a version must show to become champion.

A section of the recipe, `registry.gate`, and of `heliograph promote --rule`; it imports nothing
heavy. `better` and `not_worse` compare with the champion, as `of_champion` does elsewhere; what
compares passes where there is no champion yet. Everything else holds for a first champion too.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Metric = Literal["bleu", "chrf"]
Part = Annotated[float, Field(ge=0.0, le=1.0)]


class Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Better(Rule):
    """Better than the champion on the evaluation set that is pinned to the candidate."""

    kind: Literal["better"] = "better"
    metric: Metric = "bleu"
    margin: float = Field(0.2, ge=0)
    """Points by which it must be better; 0: by anything at all."""
    p: float = Field(0.05, gt=0, le=1)
    """The p-value must be below this: paired bootstrap resampling (Koehn, 2004), as sacrebleu does
    it. It is one-sided, so of versions that are no better about this share passes (see
    benchmarks/gate.py). 1 asks for the margin alone."""
    samples: int = Field(1000, ge=10)
    """Resamples, for the p-value and the 95 % confidence intervals."""


class NotWorse(Rule):
    """Not much worse than the champion on another set, which `heliograph pin` gave its name."""

    kind: Literal["not_worse"] = "not_worse"
    set: str
    """The set's name."""
    metric: Metric = "bleu"
    tolerance: float = Field(0.5, ge=0)
    """Points that it may lose."""


class Speed(Rule):
    """How fast it translates, on the machine that judges; both are measured there and then."""

    kind: Literal["speed"] = "speed"
    sentences: int = Field(200, ge=1)
    """The first this many of the evaluation set are translated."""
    per_second: float | None = Field(None, gt=0)
    """Sentences a second, at least. None: not asked for."""
    of_champion: float | None = Field(None, gt=0)
    """At least this share of the champion's speed. None: not asked for."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Speed":
        if self.per_second is None and self.of_champion is None:
            raise ValueError("set per_second or of_champion (or both)")
        return self


class Size(Rule):
    """How large its weights are on disk."""

    kind: Literal["size"] = "size"
    megabytes: float | None = Field(None, gt=0)
    """At most this many (10 ** 6 bytes). None: not asked for."""
    of_champion: float | None = Field(None, gt=0)
    """At most this many times the champion's. None: not asked for."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Size":
        if self.megabytes is None and self.of_champion is None:
            raise ValueError("set megabytes or of_champion (or both)")
        return self


class Behaviour(Rule):
    """What a score hides: mistakes that no user forgives. None, anywhere: not asked for."""

    kind: Literal["behaviour"] = "behaviour"
    numbers: Part | None = 0.9
    """Of the numbers that source and reference share, at least this share is in the translation."""
    empty: Part | None = 0.0
    """At most this share of the translations is empty."""
    length_ratio: tuple[float, float] | None = (0.8, 1.25)
    """Characters of all translations / those of all references, at least and at most."""
    loops: Part | None = 0.01
    """At most this share of the translations says the same three times running, where the reference
    does not."""
    typos: Part | None = None
    """Of the chrF on the set as it is, at least this share is left when in each sentence two
    neighbouring letters are swapped."""
    case: Part | None = None
    """Likewise when sources are all lower case."""
    punctuation: Part | None = None
    """Likewise when sources lack the punctuation at their ends."""
    sentences: int = Field(200, ge=1)
    """typos, case and punctuation are tried on the first this many of the set."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "Behaviour":
        if self.length_ratio is not None and self.length_ratio[0] > self.length_ratio[1]:
            raise ValueError(f"length_ratio {self.length_ratio}: the lower bound comes first")
        return self


Gate = list[Annotated[Better | NotWorse | Speed | Size | Behaviour, Field(discriminator="kind")]]
AnyRule = Better | NotWorse | Speed | Size | Behaviour

RULES: dict[str, type[Rule]] = {
    "better": Better,
    "not_worse": NotWorse,
    "speed": Speed,
    "size": Size,
    "behaviour": Behaviour,
}
"""By kind."""

DEFAULT_GATE: Gate = [Better()]
