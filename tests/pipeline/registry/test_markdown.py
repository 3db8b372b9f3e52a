"""Whatever a value holds, a page shows it as text; parsed by another library's rules."""

import re

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from heliograph.pipeline.registry.markdown import fenced, one_line_of, paragraphs, plain, table

# What Markdown and HTML are made of, more often than chance would bring it.
SPECIAL = st.sampled_from(
    ["|", "`", "```", "[a](b)", "![a](b)", "<b>", "&amp;", "*", "_", "\\", "#", "- ", "1. ", "\n",
     "---", "~~~", "~~", "$", "> ", "<!--", "\u202e", "\x1b", "http://a.b/c", "    ", "| - |"]
)  # fmt: skip
TEXTS = st.lists(SPECIAL | st.text(max_size=5), max_size=8).map("".join)


def parse(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def shown(token: Token) -> str:
    """The text of an inline token, of which all must be text."""
    assert {child.type for child in token.children or []} <= {"text", "text_special"}, token
    return "".join(child.content for child in token.children or [])


def collapsed(text: str) -> str:
    return " ".join(one_line_of(text).split())


@given(TEXTS, TEXTS)
def test_a_cell_is_a_cell(first: str, second: str) -> None:
    tokens = parse(table(["a", "b"], [(first, second)]) + "\n\nafter\n")
    assert [token.type for token in tokens if token.level == 0] == [
        "table_open", "table_close", "paragraph_open", "paragraph_close",
    ]  # fmt: skip
    cells = [shown(token) for token in tokens if token.type == "inline"]
    assert [collapsed(cell) for cell in cells[2:4]] == [collapsed(first), collapsed(second)]


@given(TEXTS)
def test_a_line_is_a_line(text: str) -> None:
    tokens = parse(f"- **x**: {plain(text)}\n\n{plain(text)}\n")
    blocks = {re.sub("_(open|close)$", "", token.type) for token in tokens}
    assert blocks <= {"bullet_list", "list_item", "paragraph", "inline"}
    if collapsed(text):
        assert collapsed(shown(tokens[-2])) == collapsed(text)


@given(TEXTS)
def test_notes_stay_in_their_quotation(text: str) -> None:
    tokens = parse(f"before\n\n{paragraphs(text)}\n\nafter\n")
    assert {token.type for token in tokens} <= {
        "paragraph_open", "paragraph_close", "inline", "blockquote_open", "blockquote_close",
    }  # fmt: skip
    assert [token.content for token in tokens if token.type == "inline"][-1] == "after"


@given(TEXTS)
def test_nothing_ends_a_block_of_code(text: str) -> None:
    tokens = parse(f"{fenced(text)}\n\nafter\n")
    assert [token.type for token in tokens][:2] == ["fence", "paragraph_open"]
