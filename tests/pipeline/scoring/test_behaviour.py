import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.pipeline.scoring.behaviour import (
    count_empty,
    count_loops,
    has_loop,
    length_ratio,
    numbers_kept,
    with_typo,
    without_final_punctuation,
)


def test_numbers_that_source_and_reference_share_are_to_be_kept() -> None:
    sources = ["At 10:30 we pay 1,000 or 7.", "Two of 12.", "None here."]
    references = ["Um 10:30 zahlen wir 1.000 oder 7.", "Zwei von 12.", "Keine."]
    assert numbers_kept(sources, references, references) == (3, 3)
    assert numbers_kept(sources, references, ["10:30 und 70", "Zwei von 21.", "3"]) == (1, 3)


def test_a_number_said_twice_is_wanted_twice() -> None:
    assert numbers_kept(["5 and 5"], ["5 und 5"], ["5"]) == (1, 2)


def test_nothing_is_an_answer_to_nothing_only() -> None:
    assert count_empty(["a", " ", "b"], ["", "", " "]) == 2


@pytest.mark.parametrize("text", ["ja ja ja", "a b a b a b", "x eins zwei drei " * 3])
def test_loops(text: str) -> None:
    assert has_loop(text)
    assert count_loops(["nein", text], [text, text]) == 1


@pytest.mark.parametrize("text", ["", "ja ja", "a b a b a c", "sehr, sehr, ja sehr"])
def test_what_is_no_loop(text: str) -> None:
    assert not has_loop(text)


def test_length_is_that_of_the_whole_set() -> None:
    assert length_ratio(["abcd", "ef"], ["ab", "e"]) == 0.5
    assert length_ratio([""], ["ab"]) == 2


def test_untidy_sources() -> None:
    assert with_typo("The kitchen is red.") == "The kicthen is red."
    assert with_typo("We go. 12345") == "We go. 12345"
    assert without_final_punctuation("A dog?! ") == "A dog"
    assert without_final_punctuation("?!") == "?!"


@given(st.text())
def test_a_typo_changes_two_neighbours_at_most(sentence: str) -> None:
    changed = with_typo(sentence)
    assert sorted(changed) == sorted(sentence)
    assert sum(a != b for a, b in zip(sentence, changed, strict=True)) in (0, 2)
