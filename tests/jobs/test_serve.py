"""What cannot be served is said at once."""

from collections.abc import Callable

import pytest

from tests.jobs.conftest import Forked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nobody",), "'nobody' is not there"),
        (("models:/nobody@champion",), "'nobody' does not exist"),
        ((".", "--beam", "1000"), "--beam 1000: Input should be less than or equal to 64"),
        ((".", "--queue", "8"), "--queue 8: a request of --sentences 64 would never find room"),
    ],
)
def test_a_mistake_is_answered_at_once(
    words: tuple[str, ...], message: str, heliograph: Callable[..., Forked]
) -> None:
    done = heliograph("serve", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "ray" not in done.loaded
