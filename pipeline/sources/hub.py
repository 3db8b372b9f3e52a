"""Datasets as `datasets` finds them: on the hub, in folders laid out like it, in its own formats.

Which files a split consists of goes by the rules of `datasets`: the configurations in the README,
else the split patterns (train.jsonl, data/validation-00000-of-00001.parquet, …). Every mistake and
every silence of the hub becomes a `RequestError`. Nothing of the data itself is read here.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from heliograph.pipeline.request.errors import RequestError, Unreachable, did_you_mean, one_line

HUB_SECONDS = 10.0
"""The hub answers its first request within this time or counts as out of reach."""

_NOT_SETTINGS = {"name", "version", "data_dir", "data_files", "description", "features"}


def hub_revision(name: str, revision: str | None) -> str:
    """The commit that `revision` is now: one request, so that no network is noticed at once."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub import errors as hub_errors

    try:
        info = HfApi().dataset_info(name, revision=revision, timeout=HUB_SECONDS)
    except hub_errors.GatedRepoError as error:
        raise RequestError(
            f"{name!r} is a gated dataset: ask for access at {constants.ENDPOINT}/datasets/{name} "
            "and set HF_TOKEN to a token of yours"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise RequestError(f"data.revision: {name!r} has no revision {revision!r}") from error
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        raise RequestError(
            f"{name!r} is neither a file or folder here nor a dataset at {constants.ENDPOINT}: "
            "check the spelling (OWNER/NAME); a private dataset needs HF_TOKEN"
        ) from error
    except Exception as error:  # whatever its HTTP client raises when there is no answer
        raise Unreachable(
            f"{name!r} is neither a file or folder here, nor could {constants.ENDPOINT} be asked "
            f"for a dataset of that name ({type(error).__name__}: {one_line(error)}): check the "
            "network, HF_ENDPOINT and HF_TOKEN, or name local files"
        ) from error
    assert info.sha is not None
    return info.sha


def dataset_builder(
    path: str,
    configuration: str | None,
    revision: str | None = None,
    data_files: dict[str, list[str]] | None = None,
) -> Any:
    """What `datasets` knows of a hub dataset, a folder, or files of one of its formats.

    Token and endpoint are part of it, so that workers reach what the driver reaches, whatever their
    environment.

    Raises:
        RequestError: there is no such dataset, configuration or file.
    """
    with quiet(), tempfile.TemporaryDirectory() as cache:
        import datasets
        from huggingface_hub import constants, get_token

        token = get_token()
        try:
            return datasets.load_dataset_builder(
                path,
                configuration,
                data_files=data_files,
                revision=revision,
                cache_dir=cache,
                token=token,
                storage_options={"hf": {"endpoint": constants.ENDPOINT, "token": token}},
            )
        except Exception as error:  # `datasets` raises many kinds for what is not as it should be
            if isinstance(error, ValueError) and "onfig" in str(error):
                raise RequestError(f"data.configuration: {path!r}: {one_line(error)}") from error
            raise RequestError(
                f"{path!r} cannot be read as a dataset: {one_line(error)}"
            ) from error


def split_files(builder: Any, split: str, name: str) -> list[str]:
    """The paths or hf:// URLs of the split's files; RequestError names the splits there are."""
    splits = {str(key): list(files) for key, files in (builder.config.data_files or {}).items()}
    if split not in splits:
        raise RequestError(f"{name!r} has no split {split!r}; {did_you_mean(split, splits)}")
    return splits[split]


def passed_over(builder: Any, folder: str, files: Iterable[str]) -> list[str]:
    """Of a folder's files those that have a split's name in theirs, and yet are in no split: of
    several layouts `datasets` takes the first that it finds. None where a README says what is."""
    from datasets.data_files import SPLIT_KEYWORDS

    if os.path.exists(f"{folder}/README.md"):
        return []
    used = {str(file) for files in (builder.config.data_files or {}).values() for file in files}
    keywords = {keyword for keywords in SPLIT_KEYWORDS.values() for keyword in keywords}
    words = {file: re.split(r"[^a-z]+", os.path.relpath(file, folder).lower()) for file in files}
    return [file for file in words if file not in used and keywords & {*words[file]}]


def settings_of(builder: Any) -> dict[str, Any]:
    """How the README's configuration says the files are to be read, where not as is usual."""
    usual = type(builder.config)()
    names = {field.name for field in fields(usual)} - _NOT_SETTINGS
    given = {name: getattr(builder.config, name) for name in names}
    return {name: value for name, value in given.items() if value != getattr(usual, name)}


@contextmanager
def quiet() -> Iterator[None]:
    """`datasets` shows progress bars and warnings for what ends in one error message anyway."""
    import datasets

    logger, bars = logging.getLogger("huggingface_hub"), datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
