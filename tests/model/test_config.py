import json
from dataclasses import asdict
from typing import Any

import pytest

from heliograph.model import TransformerConfig


def test_survives_json() -> None:
    config = TransformerConfig(vocabulary_size=100, width=32, heads=4, norm="pre", dropout=0.25)
    assert TransformerConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 31, "heads": 1},
        {"width": 32, "heads": 5},
        {"decoder_layers": 0},
        {"dropout": 1.0},
        {"attention_dropout": -0.1},
        {"norm": "middle"},
        {"pad_id": 2},
        {"end_id": 100},
    ],
)
def test_refuses_what_cannot_be_built(wrong: dict[str, Any]) -> None:
    *_, name = wrong
    with pytest.raises(ValueError, match=name):
        TransformerConfig(**({"vocabulary_size": 100} | wrong))
