"""What a user can get wrong, said in words.

Every message names the key or thing at fault, its value, and what would be valid. The command line
turns a `RequestError` into one line and exit code 2, and any other error into exit code 1.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RequestError(ValueError):
    """The request was wrong: nothing was started and nothing was written. Exit code 2."""


class Unreachable(RequestError):
    """Where data should be is nothing, or no answer. What was prepared of them still counts."""


class JobStopped(RuntimeError):
    """The job cannot go on, and starting its workers again would not help. Exit code 1."""


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """The end of an error message: the nearest valid word if one is near, else all of them."""
    words = sorted(valid)
    near = get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(words)}"


def one_line(error: BaseException) -> str:
    """What an exception says, for the end of a message; of a long text its beginning, which often
    names the place, and its end, which names the cause."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"
