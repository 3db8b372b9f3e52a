"""What a score hides: numbers that change, nothing said, loops, and what a typing error does.

Plain functions of texts; the gate knows what is too much of each.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
LONGEST_LOOP = 4
"""Words of the longest phrase whose repetition is looked for."""


def numbers_kept(
    sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]
) -> tuple[int, int]:
    """How many of the numbers that source and reference share the hypothesis has, and of how many.

    Those that the reference spells out or writes otherwise are not counted against anyone.
    """
    kept = wanted = 0
    for texts in zip(sources, references, hypotheses, strict=True):
        source, reference, hypothesis = (Counter(NUMBER.findall(text)) for text in texts)
        shared = source & reference
        wanted += shared.total()
        kept += (shared & hypothesis).total()
    return kept, wanted


def count_empty(sources: Sequence[str], hypotheses: Sequence[str]) -> int:
    """Translations of something that are nothing."""
    pairs = zip(sources, hypotheses, strict=True)
    return sum(bool(source.strip()) and not hypothesis.strip() for source, hypothesis in pairs)


def length_ratio(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Characters of all hypotheses / those of all references."""
    return sum(map(len, hypotheses)) / max(1, sum(map(len, references)))


def count_loops(references: Sequence[str], hypotheses: Sequence[str]) -> int:
    """Hypotheses that loop where the reference does not."""
    pairs = zip(references, hypotheses, strict=True)
    return sum(has_loop(hypothesis) and not has_loop(reference) for reference, hypothesis in pairs)


def has_loop(text: str) -> bool:
    """Whether up to four words in a row are said three times running."""
    words = text.split()
    for size in range(1, LONGEST_LOOP + 1):
        for start in range(len(words) - 3 * size + 1):
            first, second, third = (
                words[start + n * size : start + (n + 1) * size] for n in range(3)
            )
            if first == second == third:
                return True
    return False


def with_typo(sentence: str) -> str:
    """Two neighbouring letters of the longest word change places, as near its middle as possible;
    words of fewer than four letters are left alone."""
    words = sorted(re.finditer(r"[^\W\d_]{4,}", sentence), key=lambda word: -len(word[0]))
    for word in words:
        middle = (word.start() + word.end()) / 2
        for at in sorted(range(word.start(), word.end() - 1), key=lambda at: abs(at + 1 - middle)):
            first, second = sentence[at], sentence[at + 1]
            if first != second:
                return sentence[:at] + second + first + sentence[at + 2 :]
    return sentence


def without_final_punctuation(sentence: str) -> str:
    """Of nothing but punctuation: the sentence as it is."""
    return re.sub(r"[\s.!?…。!?]+$", "", sentence) or sentence


VARIANTS: dict[str, Callable[[str], str]] = {
    "typos": with_typo,
    "case": str.lower,
    "punctuation": without_final_punctuation,
}
"""What is done to sources to see how much a model depends on tidy ones, by the rule's key."""
