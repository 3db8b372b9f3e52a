"""The embedded corpus: English sentences and their German translations from a small grammar.

It shows in minutes what a translation model has to learn: agreement (gender, case, number,
adjective endings), verb position (second in main clauses, last in subordinate ones, separable
prefixes and infinitives at the end), and words whose translation depends on other words of the
sentence: the bark of a tree is "Rinde", a dog's is "Bellen". Sentences are drawn at random with a
fixed seed; each English sentence has exactly one translation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from heliograph.pipeline.sources.embedded.lexicon import (
    CONJUNCTIONS,
    MODALS,
    PEOPLE,
    REPORTING,
    TIMES,
    VERBS,
    Case,
    Noun,
    Pair,
    Verb,
)

Split = Literal["train", "validation", "test"]
SPLITS: dict[Split, int] = {"test": 1000, "validation": 1000, "train": 30_000}
"""Pairs in each split, in the order in which they are drawn."""

AMBIGUOUS = (
    ("The old tree has a strange bark.", "Der alte Baum hat eine seltsame Rinde."),
    ("The old dog has a strange bark.", "Der alte Hund hat ein seltsames Bellen."),
    ("The teacher pays the bill at the bank.", "Der Lehrer bezahlt die Rechnung bei der Bank."),
    ("The teacher fishes at the bank.", "Der Lehrer angelt am Ufer."),
    ("The girl sends the king a letter.", "Das Mädchen schickt dem König einen Brief."),
    ("The girl must learn this letter.", "Das Mädchen muss diesen Buchstaben lernen."),
    ("My mother loses the new key.", "Meine Mutter verliert den neuen Schlüssel."),
    ("My mother presses the new key.", "Meine Mutter drückt die neue Taste."),
    ("The woman buys a light bag.", "Die Frau kauft eine leichte Tasche."),
    ("The woman cleans a light kitchen.", "Die Frau putzt eine helle Küche."),
    ("Our farmer knows this man.", "Unser Bauer kennt diesen Mann."),
    ("Our farmer knows that this man sleeps.", "Unser Bauer weiß, dass dieser Mann schläft."),
)
"""Ambiguous words in both meanings. No split holds any of these sentences, not even as a clause."""

Endings = dict[Case, tuple[str, str, str, str]]
"""For each case: masculine, feminine, neuter, plural."""


@cache
def _splits() -> dict[Split, tuple[Pair, ...]]:
    held_out = [source.rstrip(".").lower() for source, _ in AMBIGUOUS]
    sentences = _sentences(Random(2017))
    pairs: dict[str, str] = {}
    while len(pairs) < sum(SPLITS.values()):
        source, target = next(sentences)
        lowered = source.lower()
        if not any(clause in lowered for clause in held_out):
            pairs.setdefault(source, target)
    remaining = iter(pairs.items())
    return {
        split: tuple(pair for _, pair in zip(range(rows), remaining, strict=False))
        for split, rows in SPLITS.items()
    }


def pairs(split: Split) -> list[Pair]:
    """The split's (English, German) pairs, always the same, no English sentence twice in any."""
    return list(_splits()[split])


# --- Noun phrases: determiner, adjective and noun agree in gender, number and case -------------

NO_ENDING: Endings = dict.fromkeys(("nominative", "accusative", "dative"), ("", "", "", ""))
DER: Endings = {
    "nominative": ("der", "die", "das", "die"),
    "accusative": ("den", "die", "das", "die"),
    "dative": ("dem", "der", "dem", "den"),
}
DIESER: Endings = {
    "nominative": ("er", "e", "es", "e"),
    "accusative": ("en", "e", "es", "e"),
    "dative": ("em", "er", "em", "en"),
}
EIN: Endings = {
    "nominative": ("", "e", "", "e"),
    "accusative": ("en", "e", "", "e"),
    "dative": ("em", "er", "em", "en"),
}
WEAK: Endings = {
    "nominative": ("e", "e", "e", "en"),
    "accusative": ("en", "e", "e", "en"),
    "dative": ("en", "en", "en", "en"),
}
MIXED: Endings = {
    "nominative": ("er", "e", "es", "en"),
    "accusative": ("en", "e", "es", "en"),
    "dative": ("en", "en", "en", "en"),
}
STRONG: Endings = DIESER


@dataclass(frozen=True)
class Determiner:
    english: str
    german: str
    endings: Endings
    adjective_endings: Endings


THE = Determiner("the", "", DER, WEAK)
MY = Determiner("my", "mein", EIN, MIXED)
OUR = Determiner("our", "unser", EIN, MIXED)
A = Determiner("a", "ein", EIN, MIXED)
SINGULAR = (
    THE,
    A,
    Determiner("this", "dies", DIESER, WEAK),
    MY,
    OUR,
)
PLURAL = (
    THE,
    Determiner("two", "zwei", NO_ENDING, STRONG),
    Determiner("these", "dies", DIESER, WEAK),
    MY,
    OUR,
)


@dataclass(frozen=True)
class NounPhrase:
    noun: Noun
    determiner: Determiner
    adjective: Pair | None
    plural: bool

    @property
    def english(self) -> str:
        noun = self.noun.english_plural if self.plural else self.noun.english
        words = [self.adjective[0], noun] if self.adjective else [noun]
        article = self.determiner.english
        if article == "a" and words[0][0] in "aeiou":
            article = "an"
        return " ".join([article, *words])

    def german(self, case: Case) -> str:
        column = 3 if self.plural else "mfn".index(self.noun.gender)
        words = [self.determiner.german + self.determiner.endings[case][column]]
        if self.adjective:
            words.append(self.adjective[1] + self.determiner.adjective_endings[case][column])
        return " ".join([*words, self._german_noun(case)])

    def _german_noun(self, case: Case) -> str:
        if not self.plural:
            return self.noun.german if case == "nominative" else self.noun.german_oblique
        form = self.noun.german_plural
        return form + "n" if case == "dative" and form[-1] not in "ns" else form


# --- Clauses: where the verb goes ---------------------------------------------------------------


@dataclass(frozen=True)
class Clause:
    subject: NounPhrase
    verb: Verb
    modal: Verb | None = None
    recipient: NounPhrase | None = None
    object: NounPhrase | None = None
    place: Pair | None = None
    time: Pair | None = None
    time_first: bool = False

    def english(self) -> str:
        if self.modal:
            verb = f"{_agree_english(self.modal, self.subject)} {self.verb.english_base}"
        else:
            verb = _agree_english(self.verb, self.subject)
        words = [self.subject.english, verb]
        words += [phrase.english for phrase in (self.recipient, self.object) if phrase]
        if self.place:
            words.append(self.place[0])
        if self.time:
            words.insert(0 if self.time_first else len(words), self.time[0])
        return " ".join(words)

    def main(self, after_clause: bool = False) -> str:
        """German main clause: the finite verb comes second, the rest of the verb last.

        `after_clause`: a subordinate clause stands first, so that the verb is next."""
        finite, last = self._finite(), self.verb.prefix
        if self.modal:
            last = self.verb.prefix + self.verb.infinitive
        subject = self.subject.german("nominative")
        if after_clause:
            opening = [finite, subject]
        elif self.time and self.time_first:
            opening = [self.time[1], finite, subject]
        else:
            opening = [subject, finite]
        return " ".join([*opening, *self._middle(), *([last] if last else [])])

    def subordinate(self) -> str:
        """German subordinate clause: all of the verb is last."""
        finite, verb = self._finite(), self.verb
        last = [verb.prefix + verb.infinitive, finite] if self.modal else [verb.prefix + finite]
        return " ".join([self.subject.german("nominative"), *self._middle(), *last])

    def _finite(self) -> str:
        verb = self.modal or self.verb
        return verb.infinitive if self.subject.plural else verb.german

    def _middle(self) -> list[str]:
        words = [self.recipient.german("dative")] if self.recipient else []
        if self.time and not self.time_first:
            words.append(self.time[1])
        if self.object:
            words.append(self.object.german(self.verb.case))
        return words + ([self.place[1]] if self.place else [])


def _agree_english(verb: Verb, subject: NounPhrase) -> str:
    return verb.english_base if subject.plural else verb.english


# --- Drawing sentences --------------------------------------------------------------------------


def _sentences(random: Random) -> Iterator[Pair]:
    """Endless random sentences of at most 14 words, repetitions among them."""
    while True:
        kind = random.choices((_simple, _main_first, _subordinate_first, _reported), (5, 2, 2, 2))[
            0
        ]
        source, target = kind(random)
        if len(source.split()) <= 14:
            yield source[0].upper() + source[1:] + ".", target[0].upper() + target[1:] + "."


def _simple(random: Random) -> Pair:
    clause = _clause(random, detail=0.5, may_front=True)
    return clause.english(), clause.main()


def _main_first(random: Random) -> Pair:
    main, subordinate = _clause(random, may_front=True), _clause(random)
    english, german = random.choice(CONJUNCTIONS)
    return (
        f"{main.english()} {english} {subordinate.english()}",
        f"{main.main()}, {german} {subordinate.subordinate()}",
    )


def _subordinate_first(random: Random) -> Pair:
    subordinate, main = _clause(random), _clause(random)
    english, german = random.choice(CONJUNCTIONS)
    return (
        f"{english} {subordinate.english()}, {main.english()}",
        f"{german} {subordinate.subordinate()}, {main.main(after_clause=True)}",
    )


def _reported(random: Random) -> Pair:
    main = Clause(_phrase(random, PEOPLE, 0.2), random.choice(REPORTING))
    subordinate = _clause(random)
    return (
        f"{main.english()} that {subordinate.english()}",
        f"{main.main()}, dass {subordinate.subordinate()}",
    )


def _clause(random: Random, detail: float = 0.25, may_front: bool = False) -> Clause:
    """A random clause; `detail` is the share of noun phrases with an adjective, and of times."""
    verb = random.choice(VERBS)
    objects = verb.ambiguous if verb.ambiguous and random.random() < 0.5 else verb.objects
    return Clause(
        subject=_phrase(random, verb.subjects, detail),
        verb=verb,
        modal=random.choice(MODALS) if verb.modal and random.random() < 0.3 else None,
        recipient=_phrase(random, verb.recipients, detail) if verb.recipients else None,
        object=_phrase(random, objects, detail) if objects else None,
        place=random.choice(verb.places) if verb.places and random.random() < 0.7 else None,
        time=random.choice(TIMES) if random.random() < detail else None,
        time_first=may_front and random.random() < 0.5,
    )


def _phrase(random: Random, nouns: tuple[Noun, ...], detail: float) -> NounPhrase:
    noun = random.choice(nouns)
    plural = noun.german_plural != "-" and random.random() < 0.3
    determiner = random.choice(PLURAL if plural else SINGULAR)
    if noun.german_plural == "-":
        determiner = A
    adjective = random.choice(noun.adjectives) if random.random() < detail else None
    return NounPhrase(noun, determiner, adjective, plural)
