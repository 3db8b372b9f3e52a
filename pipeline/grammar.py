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

Pair = tuple[str, str]
Case = Literal["nominative", "accusative", "dative"]
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


# --- Words ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noun:
    english: str
    english_plural: str
    gender: Literal["m", "f", "n"]
    german: str
    german_plural: str
    """"-": neither language's plural is used."""
    german_oblique: str
    """Accusative and dative singular, which differ for "der Junge, den Jungen"."""
    adjectives: tuple[Pair, ...]
    """What can be said of it; the same English adjective may translate differently elsewhere."""


def _nouns(adjectives: str, table: str) -> tuple[Noun, ...]:
    """Lines of: English, plural, gender, German, plural[, oblique]. Adjectives: English=stem."""
    stems = tuple((word.split("=")[0], word.split("=")[1]) for word in adjectives.split())
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(
        Noun(row[0], row[1], row[2], row[3], row[4], row[5] if row[5:] else row[3], stems)  # type: ignore[arg-type]
        for row in rows
    )


PEOPLE = _nouns(
    "old=alt young=jung tired=müd clever=klug strong=stark small=klein",
    """
    man men m Mann Männer
    woman women f Frau Frauen
    child children n Kind Kinder
    boy boys m Junge Jungen Jungen
    girl girls n Mädchen Mädchen
    teacher teachers m Lehrer Lehrer
    farmer farmers m Bauer Bauern Bauern
    king kings m König Könige
    mother mothers f Mutter Mütter
    """,
)
DOGS = _nouns("old=alt young=jung big=groß black=schwarz", "dog dogs m Hund Hunde")
ANIMALS = DOGS + _nouns(
    "old=alt young=jung big=groß small=klein black=schwarz white=weiß",
    """
    cat cats f Katze Katzen
    horse horses n Pferd Pferde
    bird birds m Vogel Vögel
    """,
)
THINGS = _nouns(
    "old=alt new=neu small=klein heavy=schwer light=leicht red=rot beautiful=schön",
    """
    table tables m Tisch Tische
    lamp lamps f Lampe Lampen
    book books n Buch Bücher
    bag bags f Tasche Taschen
    chair chairs m Stuhl Stühle
    picture pictures n Bild Bilder
    """,
)
FOOD = _nouns(
    "fresh=frisch sweet=süß small=klein big=groß",
    """
    apple apples m Apfel Äpfel
    egg eggs n Ei Eier
    pear pears f Birne Birnen
    cake cakes m Kuchen Kuchen
    """,
)
OPENINGS = _nouns(
    "old=alt new=neu small=klein big=groß red=rot",
    """
    door doors f Tür Türen
    window windows n Fenster Fenster
    box boxes f Kiste Kisten
    """,
)
ROOMS = _nouns(
    "old=alt new=neu small=klein big=groß light=hell beautiful=schön",
    """
    kitchen kitchens f Küche Küchen
    room rooms n Zimmer Zimmer
    hall halls m Saal Säle
    """,
)
TREES = _nouns(
    "old=alt young=jung big=groß small=klein",
    """
    tree trees m Baum Bäume
    oak oaks f Eiche Eichen
    """,
)
MACHINES = _nouns("old=alt new=neu red=rot", "car cars n Auto Autos\nclock clocks f Uhr Uhren")
COMPANIES = _nouns("old=alt small=klein big=groß", "company companies f Firma Firmen")
WORDS = _nouns("long=lang new=neu strange=seltsam", "word words n Wort Wörter")
BILLS = _nouns("old=alt new=neu", "bill bills f Rechnung Rechnungen")
BUTTONS = _nouns("new=neu small=klein red=rot", "button buttons m Knopf Knöpfe")
SCREWS = _nouns("new=neu small=klein", "screw screws f Schraube Schrauben")
# The same English word twice: the verb, or the subject, says which one is meant.
TREE_BARK = _nouns("strange=seltsam beautiful=schön", "bark - f Rinde -")
DOG_BARK = _nouns("strange=seltsam beautiful=schön", "bark - n Bellen -")
MAIL_LETTER = _nouns("long=lang new=neu strange=seltsam", "letter letters m Brief Briefe")
TEXT_LETTER = _nouns("new=neu strange=seltsam", "letter letters m Buchstabe Buchstaben Buchstaben")
DOOR_KEY = _nouns("new=neu small=klein black=schwarz", "key keys m Schlüssel Schlüssel")
PIANO_KEY = _nouns("new=neu small=klein black=schwarz", "key keys f Taste Tasten")
FRUIT_NUT = _nouns("fresh=frisch small=klein big=groß", "nut nuts f Nuss Nüsse")
STEEL_NUT = _nouns("new=neu small=klein big=groß", "nut nuts f Mutter Muttern")
STEEL_SPRING = _nouns("new=neu small=klein", "spring springs f Feder Federn")
BIRD_CRANE = _nouns("old=alt big=groß white=weiß", "crane cranes m Kranich Kraniche")
STEEL_CRANE = _nouns("old=alt big=groß white=weiß", "crane cranes m Kran Kräne")

ANYWHERE = (("in the garden", "im Garten"), ("at school", "in der Schule"))
AT_WORK = (*ANYWHERE, ("in the plant", "im Werk"), ("at the bank", "bei der Bank"))
AT_THE_DESK = (("at the bank", "bei der Bank"), ("at school", "in der Schule"))
AT_THE_WATER = (("at the lake", "am See"), ("at the bank", "am Ufer"))
AT_THE_SPRING = (("at the lake", "am See"), ("at the spring", "an der Quelle"))
THROUGH = (("through the garden", "durch den Garten"), ("through the hall", "durch den Saal"))
TIMES = (
    ("today", "heute"),
    ("now", "jetzt"),
    ("every day", "jeden Tag"),
    ("in the evening", "am Abend"),
    ("in spring", "im Frühling"),
)


@dataclass(frozen=True)
class Verb:
    english: str
    english_base: str
    german: str
    """Third person singular, without the prefix."""
    infinitive: str
    """Without the prefix; it is the plural of the present tense too."""
    prefix: str = ""
    """A separable prefix: last in a main clause, joined to the verb elsewhere."""
    subjects: tuple[Noun, ...] = PEOPLE
    objects: tuple[Noun, ...] = ()
    ambiguous: tuple[Noun, ...] = ()
    """Ambiguous objects, drawn half of the time so that each is seen often."""
    case: Case = "accusative"
    recipients: tuple[Noun, ...] = ()
    places: tuple[Pair, ...] = ()
    modal: bool = True
    """Whether it goes with a modal verb."""


VERBS = (
    Verb("sleeps", "sleep", "schläft", "schlafen", subjects=PEOPLE + ANIMALS, places=ANYWHERE),
    Verb("laughs", "laugh", "lacht", "lachen"),
    Verb("works", "work", "arbeitet", "arbeiten", places=AT_WORK),
    Verb("fishes", "fish", "angelt", "angeln", places=AT_THE_WATER),
    Verb("drinks", "drink", "trinkt", "trinken", "", PEOPLE + ANIMALS, places=AT_THE_SPRING),
    Verb("gets up", "get up", "steht", "stehen", "auf"),
    Verb("arrives", "arrive", "kommt", "kommen", "an", places=ANYWHERE),
    Verb("runs", "run", "läuft", "laufen", "", PEOPLE + ANIMALS, places=THROUGH),
    Verb("runs", "run", "leitet", "leiten", objects=COMPANIES),
    Verb("flies away", "fly away", "fliegt", "fliegen", "weg", ANIMALS[-1:] + BIRD_CRANE),
    Verb("lifts", "lift", "hebt", "heben", "", PEOPLE + STEEL_CRANE * 5, THINGS),
    Verb("sees", "see", "sieht", "sehen", objects=PEOPLE + ANIMALS + THINGS + TREES),
    Verb("buys", "buy", "kauft", "kaufen", objects=THINGS + FOOD + MACHINES),
    Verb("paints", "paint", "malt", "malen", objects=PEOPLE + ANIMALS),
    Verb("paints", "paint", "streicht", "streichen", objects=ROOMS),
    Verb("cleans", "clean", "putzt", "putzen", objects=ROOMS),
    Verb("opens", "open", "macht", "machen", "auf", objects=OPENINGS),
    Verb("closes", "close", "macht", "machen", "zu", objects=OPENINGS),
    Verb("picks up", "pick up", "hebt", "heben", "auf", objects=THINGS),
    Verb("calls", "call", "ruft", "rufen", "an", objects=PEOPLE),
    Verb("eats", "eat", "isst", "essen", "", PEOPLE, FOOD, FRUIT_NUT),
    Verb("eats", "eat", "frisst", "fressen", "", ANIMALS, FOOD, FRUIT_NUT),
    Verb("turns", "turn", "dreht", "drehen", "", PEOPLE, SCREWS, STEEL_NUT),
    Verb("repairs", "repair", "repariert", "reparieren", "", PEOPLE, MACHINES, STEEL_SPRING),
    Verb("learns", "learn", "lernt", "lernen", "", PEOPLE, WORDS, TEXT_LETTER),
    Verb("presses", "press", "drückt", "drücken", "", PEOPLE, BUTTONS, PIANO_KEY),
    Verb("loses", "lose", "verliert", "verlieren", "", PEOPLE, THINGS, DOOR_KEY),
    Verb("pays", "pay", "bezahlt", "bezahlen", "", PEOPLE, BILLS, places=AT_THE_DESK),
    Verb("knows", "know", "kennt", "kennen", "", PEOPLE, PEOPLE + COMPANIES, modal=False),
    Verb("has", "have", "hat", "haben", "", TREES, TREE_BARK, modal=False),
    Verb("has", "have", "hat", "haben", "", DOGS, DOG_BARK, modal=False),
    Verb("helps", "help", "hilft", "helfen", "", PEOPLE, PEOPLE + ANIMALS, case="dative"),
    Verb("thanks", "thank", "dankt", "danken", "", PEOPLE, PEOPLE, case="dative"),
    Verb("follows", "follow", "folgt", "folgen", "", ANIMALS, PEOPLE, case="dative"),
    Verb("gives", "give", "gibt", "geben", "", PEOPLE, THINGS + FOOD, recipients=PEOPLE),
    Verb(
        "sends", "send", "schickt", "schicken", "", PEOPLE, THINGS, MAIL_LETTER, recipients=PEOPLE
    ),
)
MODALS = (
    Verb("must", "must", "muss", "müssen"),
    Verb("can", "can", "kann", "können"),
    Verb("wants to", "want to", "will", "wollen"),
    Verb("will", "will", "wird", "werden"),
)
REPORTING = (
    Verb("says", "say", "sagt", "sagen"),
    Verb("knows", "know", "weiß", "wissen"),
    Verb("thinks", "think", "glaubt", "glauben"),
)
CONJUNCTIONS = (("because", "weil"), ("when", "wenn"), ("although", "obwohl"))


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
SINGULAR = (
    THE,
    Determiner("a", "ein", EIN, MIXED),
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
    adjective = random.choice(noun.adjectives) if random.random() < detail else None
    return NounPhrase(noun, determiner, adjective, plural)
