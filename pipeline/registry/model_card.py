"""The model card: what a version was made from and how well it does, for whoever finds it.

Once as README.md among the version's files, in Hugging Face's form, where a model folder that is
uploaded there is understood; once as the version's description, which MLflow's pages show. It says
what was computed or what the recipe states; what neither knows it calls "not stated".
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from heliograph.pipeline.checkpoints.training_state import TrainingState
from heliograph.pipeline.registry.markdown import fenced, one_line_of, paragraphs, plain, table
from heliograph.pipeline.registry.provenance import DataSet, Provenance, describe_code
from heliograph.pipeline.request.recipe import Recipe
from heliograph.pipeline.scoring.evaluate import Pairs, Scores
from heliograph.pipeline.scoring.significance import confidence

CARD = "README.md"

DESCRIPTION_LIMIT = 5000
"""Characters of a version's description: MLflow's column. SQLite takes more, PostgreSQL refuses."""

NOT_STATED = "not stated"
METRICS = {"bleu": "BLEU", "chrf": "chrF"}

HUB_LICENSES = {
    "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-2.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "epl-2.0", "eupl-1.2", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0",
    "mit", "mpl-2.0", "unlicense",
}  # fmt: skip
"""What `license` may be there, of what has an SPDX name; others are `other` with their name."""


@dataclass(frozen=True)
class Weights:
    """What was registered: the weights of one step, or their mean over several checkpoints."""

    parameters: int
    bytes: int
    vocabulary: int
    step: int
    averaged: bool


@dataclass(frozen=True)
class ModelCard:
    """Of a version: `scores` are of `pairs`, which it was registered with."""

    recipe: Recipe
    provenance: Provenance
    weights: Weights
    state: TrainingState
    scores: Scores
    pairs: Pairs

    def page(self) -> str:
        """README.md, which is written before the version has its number."""
        front = yaml.safe_dump(self._front_matter(), sort_keys=False, allow_unicode=True)
        uri = f"runs:/{self.provenance.run_id}/{self.recipe.model_name}"
        parts = [*self._body(uri), "## Recipe", fenced(self.recipe.to_yaml(), "yaml")]
        return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"

    def description(self, version: int) -> str:
        """For the registry's page of the version, as long as it may be."""
        parts = self._body(f"models:/{self.recipe.model_name}/{version}")
        parts += ["## Recipe", f"In recipe.yaml and {CARD} among the version's files."]
        text = "\n\n".join(parts)
        if len(text) <= DESCRIPTION_LIMIT:
            return text
        # Sections are whole or absent, so that no block of code stays open.
        more = f"The whole card is {CARD} among the version's files."
        while parts and len("\n\n".join([*parts, more])) > DESCRIPTION_LIMIT:
            del parts[-1]
        return "\n\n".join([*parts, more])

    def _body(self, uri: str) -> list[str]:
        recipe = self.recipe
        title = (
            f"A Transformer (Vaswani et al., 2017) from {plain(recipe.data.source)} to "
            f"{plain(recipe.data.target)}, as the columns of its data are called"
            f"{self._languages()}, trained by Heliograph."
        )
        return [
            f"# {plain(recipe.model_name)}",
            title,
            "## Scores",
            self._scores(),
            "## How to load",
            _commands(uri),
            "## Licences and contact",
            self._statements(),
            "## Limits",
            self._limits(),
            "## Data",
            self._data(),
            "## Training",
            self._training(),
            *(["## Notes", paragraphs(recipe.card.notes)] if recipe.card.notes else []),
        ]

    @cached_property
    def _intervals(self) -> dict[str, float]:
        references = [target for _, target in self.pairs]
        tokenize = self.recipe.evaluate.tokenize
        return {
            name: confidence(self.scores.hypotheses, references, name, tokenize=tokenize)[1]
            for name in METRICS
        }

    def _score(self, metric: str) -> float:
        return self.scores.bleu if metric == "bleu" else self.scores.chrf

    def _scores(self) -> str:
        settings = ", ".join(f"{k} {v}" for k, v in self.recipe.evaluate.model_dump().items())
        rows = [
            (title, f"{self._score(name):.2f}", f"± {self._intervals[name]:.2f}",
             self.scores.signatures[name])
            for name, title in METRICS.items()
        ]  # fmt: skip
        return (
            f"On the {len(self.pairs):,} pairs of the {self.recipe.data.scored_on} set, which are "
            "kept with the model (evaluation.parquet). The interval is of 95 % confidence, from "
            "1,000 bootstrap resamples.\n\n"
            + table(["metric", "score", "95 % interval", "sacrebleu's signature"], rows)
            + f"\n\nDecoded with {plain(settings)}."
        )

    def _data(self) -> str:
        rows = [_row(each) for each in self.provenance.data]
        if not rows:
            return "Not recorded."
        # The digest is last: on MLflow's page it is too wide for what comes after it.
        head = ["used for", "location", "split", "revision", "read", "used", "dropped", "digest"]
        return table(head, rows) + "\n\n`heliograph lineage --data DIGEST` names other versions."

    def _training(self) -> str:
        total, weights = self.state.total, self.weights
        chosen = "mean of the last checkpoints up to step" if weights.averaged else "step"
        rows = [
            ("run", self.provenance.run_id),
            ("job", self.provenance.job or "not recorded"),
            ("code", describe_code(self.provenance.code)),
            ("parameters", f"{weights.parameters:,} ({weights.bytes:,} bytes)"),
            ("tokenizer", f"{weights.vocabulary:,} tokens, {self.provenance.tokenizer}"),
            ("weights of", f"{chosen} {weights.step:,}"),
            ("optimizer steps", f"{self.state.step:,}"),
            ("whole epochs", self.state.position.epoch),
            ("target tokens", f"{total.target_tokens:,}"),
            ("seconds of training", f"{total.seconds:,.0f}"),
            ("workers asked for", self.recipe.cluster.workers),
        ]
        return table(["", ""], rows)

    def _limits(self) -> str:
        recipe, limits = self.recipe, []
        lengths = [len(source) for source, _ in self.pairs]
        limits.append(
            f"It was trained on pairs of at most {recipe.data.max_characters:,} characters a side "
            f"and {recipe.batches.tokens_per_micro_batch:,} tokens, in one direction only, from "
            f"{plain(recipe.data.source)} to {plain(recipe.data.target)}. "
            f"{self.state.total.too_many_tokens:,} longer pairs were passed over."
        )
        limits.append(
            f"It was scored on sources of {min(lengths):,} to {max(lengths):,} characters, with "
            "one reference each, and on nothing else. "
            + (
                "The same set chose the weights, so that the scores are rather too high than too "
                "low."
                if self.recipe.data.scored_on == "validation"
                else "Another set, the validation set, chose the weights."
            )
        )
        return "\n".join(f"- {limit}" for limit in limits)

    def _statements(self) -> str:
        card = self.recipe.card
        stated = {
            "Licence of the model": card.license,
            "Licence of the training data": card.data_license,
            "Contact": card.contact,
        }
        return "\n".join(f"- {key}: {plain(value or NOT_STATED)}" for key, value in stated.items())

    def _languages(self) -> str:
        languages = self.recipe.card.languages
        return "" if languages is None else f" (languages {languages[0]} and {languages[1]})"

    def _front_matter(self) -> dict[str, Any]:
        """Hugging Face's metadata; a key that nothing is known of is left out."""
        card, front = self.recipe.card, dict[str, Any]()
        if card.languages:
            front["language"] = list(dict.fromkeys(card.languages))
        if card.license:
            stated = one_line_of(card.license)
            known = stated.lower() in HUB_LICENSES
            front["license"] = stated.lower() if known else "other"
            front |= {} if known else {"license_name": stated}
        if hub := [each.location for each in self.provenance.data if each.trains and each.on_hub]:
            front["datasets"] = list(dict.fromkeys(hub))
        front |= {"library_name": "heliograph", "metrics": list(METRICS)}
        if self._task() == "translation":
            front["pipeline_tag"] = "translation"
        results = [
            {"type": name, "value": self._score(name), "name": title,
             "args": {"signature": self.scores.signatures[name],
                      "confidence_interval_95": self._intervals[name]}}
            for name, title in METRICS.items()
        ]  # fmt: skip
        front["model-index"] = [
            {
                "name": one_line_of(self.recipe.model_name),
                "results": [
                    {
                        "task": {"type": self._task()},
                        "dataset": self._evaluation_set(),
                        "metrics": results,
                    }
                ],
            }
        ]
        return front

    def _task(self) -> str:
        languages = self.recipe.card.languages
        translates = languages is not None and languages[0] != languages[1]
        return "translation" if translates else "text2text-generation"

    def _evaluation_set(self) -> dict[str, str]:
        name = self.recipe.data.scored_on
        found = [each for each in self.provenance.data if each.context == name]
        if not found:
            return {"name": name, "type": "unknown"}
        [data] = found
        location = one_line_of(data.location)
        known = {"split": data.split, "config": data.configuration, "revision": data.revision}
        return {"name": location, "type": location if data.on_hub else "local"} | {
            key: one_line_of(value) for key, value in known.items() if value is not None
        }


def _row(data: DataSet) -> Sequence[object]:
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in data.dropped.items() if count)
    split = "/".join(filter(None, (data.configuration, data.split)))
    return (
        data.context, data.location, split, data.revision or "",
        f"{data.seen:,}", f"{data.rows:,}", dropped or "none", data.digest,
    )  # fmt: skip


def _commands(uri: str) -> str:
    name = shlex.quote(uri)
    shell = f"echo 'A sentence.' | heliograph translate {name}\nheliograph lineage {name}"
    python = (
        f"import mlflow\n\nmodel = mlflow.pyfunc.load_model({uri!r})\n"
        "model.predict(['A sentence.'])"
    )
    return (
        f"With MLFLOW_TRACKING_URI naming the store that it is registered in:\n\n"
        f"{fenced(shell, 'sh')}\n\n{fenced(python, 'python')}"
    )
