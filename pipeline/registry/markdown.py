"""Text from elsewhere in a Markdown page: it stays text, whatever characters it has.

Values come into table cells and after a label. Names of files, users and models may hold anything;
none of it may become a heading, a link, a picture, HTML, or the end of a table or of a code block.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_AT_A_LINES_BEGINNING = re.compile(r"^(\d*)(?:([#+\-=])|([.)])(?=\s|$))")
# Control characters, and those that turn the direction of what follows them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def one_line_of(value: object) -> str:
    """As text without line breaks and control characters."""
    return " ".join(_UNSEEN.sub(" ", str(value)).split())


def plain(value: object) -> str:
    """As one line of Markdown that shows exactly this text."""
    # MLflow's pages and Hugging Face's differ in what HTML they let through: none is written.
    text = _SPECIAL.sub(r"\\\1", escape(one_line_of(value), quote=False))
    return _AT_A_LINES_BEGINNING.sub(r"\1\\\2\3", text)


def paragraphs(text: str) -> str:
    """A user's lines as a quotation, line by line."""
    return "\n>\n".join(f"> {plain(line)}" for line in text.splitlines() if line.strip())


def fenced(text: str, language: str = "") -> str:
    """A code block that nothing in the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Cells are values, and are escaped here."""
    lines = [head, ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
