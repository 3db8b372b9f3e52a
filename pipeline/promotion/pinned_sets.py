"""Evaluation sets by name, pinned for all versions of a registered model.

A set's pairs lie with the model's ledger; its name, digest, size and direction are in the ledger,
where a name is given once and for good.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from heliograph.pipeline.promotion.ledger import Ledger
from heliograph.pipeline.registry.downloads import download
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.scoring.evaluate import (
    EVALUATION_SET,
    Pairs,
    evaluation_digest,
    read_evaluation_set,
    write_evaluation_set,
)
from heliograph.pipeline.tracking.server import PatientClient


def pin_set(
    client: PatientClient, ledger: Ledger, name: str, pairs: Pairs, source: str, direction: str
) -> dict[str, Any]:
    """Give a set its name; the same set may be pinned again.

    Args:
        source: where it came from.
        direction: from what to what, as in `en→de`.

    Returns:
        Its description, as it is recorded.

    Raises:
        RequestError: it is empty, or another set has the name.
    """
    if not pairs:
        raise RequestError(f"evaluation set {name!r} is empty: {source!r} has no usable pair")
    with TemporaryDirectory() as temporary:
        digest = write_evaluation_set(temporary, pairs)
        client.log_artifact(ledger.run_id, str(Path(temporary) / EVALUATION_SET), f"sets/{digest}")
    description = {
        "digest": digest,
        "sentences": len(pairs),
        "source": source,
        "direction": direction,
    }
    if not ledger.pin(name, description):
        known = ledger.read().pinned[name]
        if known["digest"] != digest or known["direction"] != direction:
            raise RequestError(
                f"evaluation set {name!r} is pinned already, with {known['sentences']} sentences "
                f"{known['direction']} from {known['source']}; a name is given once: choose another"
            )
        return known
    return description


def read_pinned(ledger: Ledger, name: str, description: dict[str, Any]) -> Pairs:
    """A pinned set's pairs.

    Raises:
        RequestError: they are not those that were pinned.
    """
    digest = str(description["digest"])
    path = download(f"runs:/{ledger.run_id}/sets/{digest}/{EVALUATION_SET}")
    pairs = read_evaluation_set(path.parent)
    if evaluation_digest(pairs) != digest:
        raise RequestError(f"evaluation set {name!r} was changed after it was pinned; pin another")
    return pairs
