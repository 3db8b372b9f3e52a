"""What is sealed can be read with the token, and with nothing else."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.pipeline.cluster.sealed import SEALED, ray_token, seal, unseal, unseal_environment


@settings(max_examples=4)  # each takes the time that guessing is to take
@given(st.dictionaries(st.text(), st.text()), st.text(min_size=1))
def test_the_token_opens_it(values: dict[str, str], token: str) -> None:
    assert unseal(seal(values, token), token) == values


def test_nothing_else_does() -> None:
    sealed = seal({"PASSWORD": "hunter2"}, "token")
    assert "hunter2" not in sealed
    assert sealed != seal({"PASSWORD": "hunter2"}, "token")
    salt, _, rest = sealed.partition(".")
    for text, token in ((sealed, "Token"), (f"{salt}.{rest[:-9]}AAAAAAAA=", "token")):
        with pytest.raises(ValueError, match="not the one that the job came with"):
            unseal(text, token)


def test_a_process_opens_what_came_with_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "the node's own")
    monkeypatch.delenv(SEALED, raising=False)
    unseal_environment()
    monkeypatch.setenv(SEALED, seal({"HF_TOKEN": "the sender's"}, ray_token()))
    assert os.environ["HF_TOKEN"] == "the node's own"
    unseal_environment()
    assert os.environ["HF_TOKEN"] == "the sender's"
