"""A model in another form: written, held against the model in torch, and only then handed over."""

import shutil
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from heliograph.pipeline.checkpoints.model_folder import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    load_model,
    read_settings,
)
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.registry.versions import add_export, find_version, open_registry
from heliograph.pipeline.request.decoding import Decoding
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import RegisteredModel, RunArtifact, parse_model
from heliograph.pipeline.scoring.evaluate import Pairs, read_evaluation_set, score
from heliograph.pipeline.storage.folders import LocalFolders, size_of
from heliograph.pipeline.translation.conversion import convert
from heliograph.pipeline.translation.engines import Engine, open_engine
from heliograph.pipeline.translation.exports import (
    PRECISIONS,
    SEAL,
    check_export,
    find_exports,
    write_seal,
)
from heliograph.pipeline.translation.fast_engine import check_precision
from heliograph.pipeline.translation.marian import (
    check_marian,
    largest_difference,
    load_marian,
    write_marian,
)
from heliograph.pipeline.translation.translate import Translation, Translator

Format = Literal["ctranslate2", "ctranslate2-int8", "ctranslate2-float16", "marian"]

CHECKED_PAIRS = 1000
"""Pairs of the evaluation set that an export is checked on, spread evenly over it."""

SAME_STRINGS = 0.99
"""The share of sentences that a float32 export has to translate as torch does."""

SCORE_TOLERANCE = 1e-3
"""By how much a float32 export's best score may differ from torch's, per token, in nats."""

LOGIT_TOLERANCE = 1e-3
"""By how much a logit may differ where the same function is computed in another order."""


def export_engine(model: str, engine: Engine, max_loss: float) -> dict[str, Any]:
    """Add an export for an engine to a model: to the files of a registered version, or to a folder.

    Args:
        model: models:/… or a checkpoint folder, with its evaluation set.
        engine: a key of `exports.PRECISIONS`.
        max_loss: BLEU that an export of less than float32 may lose on the evaluation set.

    Returns:
        The result as `heliograph export --json` prints it.

    Raises:
        RequestError: the model is not there or brings no evaluation set, this machine cannot run
            such an export, or the export does not do what the model does.
    """
    wanted = parse_model(model)
    check_precision(engine)
    hand_over = _to_folder(wanted) if isinstance(wanted, Path) else _to_version(wanted)
    folder = Path(fetch_model(model, engine))
    if engine in find_exports(folder):
        check_export(folder, engine)
        return {"model": model, "format": engine, "added": False}
    pairs = _sample(read_evaluation_set(folder))
    with TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        for name in (CONFIG, WEIGHTS, TOKENIZER):
            shutil.copyfile(folder / name, scratch / name)
        export = scratch / engine
        export.mkdir()
        network, tokenizer = load_model(scratch)
        convert(network, tokenizer, export, PRECISIONS[engine])
        write_seal(export, scratch, f"ctranslate2 {installed_version('ctranslate2')}")
        check = compare(scratch, engine, pairs, Decoding.like(read_settings(folder)))
        _judge(engine, check, max_loss)
        hand_over(export, check)
        size = size_of(export)
    return {"model": model, "format": engine, "added": True, "bytes": size, **check}


def export_marian(model: str, output: str) -> dict[str, Any]:
    """Write a model as a Hugging Face MarianMT into a new folder.

    Returns:
        The result as `heliograph export --json` prints it.

    Raises:
        RequestError: the model is not there, brings no evaluation set, or has no such form; the
            folder is in use; or what was written does not compute the model's logits.
    """
    target = Path(output).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestError(f"output {output!r} exists already; name a new or empty folder")
    folder = Path(fetch_model(model))
    network, tokenizer = load_model(folder)
    check_marian(network)
    pairs = _sample(read_evaluation_set(folder))
    sides = [tokenizer.encode_batch(list(side)) for side in zip(*pairs, strict=True)]
    folders = LocalFolders(str(target.parent))
    with folders.scratch() as scratch:
        written = scratch / target.name
        written.mkdir()
        write_marian(network, tokenizer, read_settings(folder), written)
        difference = largest_difference(
            network, load_marian(written), list(zip(*sides, strict=True))
        )
        if not difference < LOGIT_TOLERANCE:
            raise RequestError(
                f"the MarianMT of {model!r} differs by {difference:.2g} in a logit, more than "
                f"{LOGIT_TOLERANCE}; it was not kept"
            )
        folders.publish(written, target.name, "config.json")
    return {
        "model": model,
        "format": "marian",
        "output": str(target),
        "bytes": size_of(target),
        "sentences": len(pairs),
        "logit_difference": difference,
    }


def compare(folder: Path, engine: Engine, pairs: Pairs, settings: Decoding) -> dict[str, float]:
    """What an engine makes of the pairs' sources, beside what torch makes of them.

    Returns:
        sentences, the share of `same` translations, the largest `score_difference` of any, and the
        BLEU of both.
    """
    sources, references = [source for source, _ in pairs], [target for _, target in pairs]
    ours, theirs = (
        [found[0] if found else Translation("", 0.0) for found in alternatives]
        for alternatives in (
            Translator.load(folder, precision="float32").alternatives(sources, settings),
            open_engine(folder, engine).alternatives(sources, settings),
        )
    )
    both = list(zip(ours, theirs, strict=True))
    return {
        "sentences": len(pairs),
        "same": sum(our.text == their.text for our, their in both) / len(pairs),
        "score_difference": max(abs(our.score - their.score) for our, their in both),
        "torch_bleu": score([our.text for our in ours], references).bleu,
        "bleu": score([their.text for their in theirs], references).bleu,
    }


def _judge(engine: Engine, check: dict[str, float], max_loss: float) -> None:
    """Raises RequestError when an export does not do what the model does."""
    found = (
        f"{engine!r} translates {check['same']:.1%} of {check['sentences']} sentences as torch "
        f"does, with scores that differ by up to {check['score_difference']:.2g}, and has BLEU "
        f"{check['bleu']:.2f} where torch has {check['torch_bleu']:.2f}"
    )
    if PRECISIONS[engine] != "float32":
        if check["torch_bleu"] - check["bleu"] > max_loss:
            raise RequestError(f"{found}; it may lose {max_loss:g} (--max-loss) and was not added")
    elif check["same"] < SAME_STRINGS or check["score_difference"] >= SCORE_TOLERANCE:
        raise RequestError(
            f"{found}; at least {SAME_STRINGS:.0%} and less than {SCORE_TOLERANCE} are needed, and "
            "it was not added: this processor or its libraries compute otherwise"
        )


def _sample(pairs: Pairs) -> list[tuple[str, str]]:
    """At most `CHECKED_PAIRS` of them, evenly spread."""
    wanted = min(len(pairs), CHECKED_PAIRS)
    return [pairs[number * len(pairs) // wanted] for number in range(wanted)]


HandOver = Callable[[Path, dict[str, float]], None]
"""Takes a checked export and how it compared with torch."""


def _to_version(wanted: RegisteredModel | RunArtifact) -> HandOver:
    """Raises RequestError when it is no version."""
    if isinstance(wanted, RunArtifact):
        raise RequestError(
            f"model 'runs:/{wanted.run_id}/{wanted.path}' is a run's, to which nothing is added; "
            "exports belong to models:/NAME@ALIAS, models:/NAME/VERSION or a checkpoint folder"
        )
    client = open_registry()
    version = find_version(client, wanted)
    return lambda export, check: add_export(client, version, export, check)


def _to_folder(folder: Path) -> HandOver:
    def publish(export: Path, _: dict[str, float]) -> None:
        folders = LocalFolders(str(folder))
        with folders.scratch() as scratch:
            shutil.copytree(export, scratch / export.name)
            folders.publish(scratch / export.name, export.name, SEAL)

    return publish
