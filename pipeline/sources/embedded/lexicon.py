"""The words of the embedded corpus: German forms, what goes with what, and ambiguous words.

An ambiguous English word has two entries. Each is used only where the rest of the sentence decides
between them: a nut that is eaten is "Nuss", one that is turned is "Mutter"; people run a company
("leiten") or through the hall ("laufen"); "light" is "leicht" of a bag and "hell" of a room.
"""

from dataclasses import dataclass
from typing import Literal

Pair = tuple[str, str]
Case = Literal["nominative", "accusative", "dative"]


@dataclass(frozen=True)
class Noun:
    english: str
    english_plural: str
    gender: Literal["m", "f", "n"]
    german: str
    german_plural: str
    """"-": only ever singular, with "a"."""
    german_oblique: str
    """Accusative and dative singular, which differ for "der Junge, den Jungen"."""
    adjectives: tuple[Pair, ...]
    """What can be said of it; the same English adjective may translate differently elsewhere."""


def _nouns(adjectives: str, table: str) -> tuple[Noun, ...]:
    """Lines of: English, plural, gender, German, plural[, oblique]. Adjectives: English=stem."""
    stems = tuple((word.split("=")[0], word.split("=")[1]) for word in adjectives.split())
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(  # the gender is a Literal, which a table's cell is not known to be
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
# The same English word twice: the verb or the subject says which one is meant.
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
