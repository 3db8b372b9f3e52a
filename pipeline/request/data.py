"""Which sentence pairs a job reads: the recipe's section `data`."""

from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PairOfFiles(Section):
    """Two text files, line n of one the translation of line n of the other."""

    source: str
    target: str


class Stream(Section):
    """What `datasets.load_dataset(stream, data_files=files, streaming=True)` opens: other formats
    than those read here directly, in a hub dataset, a folder or files."""

    stream: str
    """A hub dataset, a folder, or a format of `datasets`: arrow, webdataset, text, xml, …"""
    files: str | list[str] | None = None
    """The files, where `stream` is a format; globs allowed. All of them are the asked split."""


Location = str | list[str] | PairOfFiles | Stream


class Ingredient(Section):
    """One corpus of a mixture."""

    location: Location
    weight: float = Field(1.0, gt=0, le=1000)
    """How often an epoch uses each of its pairs: 2 is twice, 0.5 is one half in one epoch and the
    other half in the next."""
    split: str | None = None
    """None, here and below: as in the data section."""
    configuration: str | None = None
    revision: str | None = None
    source: str | None = None
    target: str | None = None
    columns: tuple[PositiveInt, PositiveInt] | None = None


class Data(Section):
    """Where the sentence pairs come from, and which of them are used."""

    train: Location | list[Ingredient]
    """A hub dataset's name, a folder, files (Parquet, JSON lines, CSV, TSV; globs allowed), a pair
    of text files {source: …, target: …}, whatever else `datasets` can stream {stream: …}, or
    embedded:train, the corpus inside this package. A list of {location: …, weight: …} mixes
    several."""
    validation: Location
    """Likewise. BLEU on it chooses the best checkpoint."""
    test: Location | None = None
    """Likewise, and kept apart: the finished model is scored on it, and the gate compares models on
    it. None: on `validation`, whose scores are rather too high, because they chose the model."""
    train_split: str = "train"
    """Which split of `train`, where that is a hub dataset or a folder."""
    validation_split: str = "validation"
    """Which split of `validation`, likewise."""
    test_split: str = "test"
    """Which split of `test`, likewise."""
    configuration: str | None = None
    """The hub dataset's configuration (its "subset"), where it has several."""
    revision: str | None = None
    """The hub dataset's commit, tag or branch. None: the newest, and what that was is recorded."""
    source: str = "source"
    """The source's column, or its key inside a `translation` column."""
    target: str = "target"
    """The target's, likewise."""
    columns: tuple[PositiveInt, PositiveInt] | None = None
    """The numbers of both columns, from 1, in CSV and TSV files whose first line is no header.
    None: it names the columns."""
    max_rows: int | None = Field(None, ge=1)
    """Of each corpus at most this many rows are read, evenly from the beginnings of its files or
    shards. None: all; of a stream, where only train.steps ends training, as many as that needs."""
    unicode: Literal["NFC", "NFKC"] | None = None
    """Text is brought to this normal form, in training and whenever the model translates."""
    drop_identical: bool = False
    """A pair whose sides are equal is dropped and counted."""
    drop_duplicates: bool = False
    """Of equal pairs the first is kept, the others are dropped and counted."""
    max_characters: int = Field(2000, ge=1)
    """A pair with a longer side is dropped and counted."""
    max_length_ratio: float = Field(9.0, ge=1.0)
    """A pair is dropped and counted when one side has this many times the characters of the other.
    Ten is added to both lengths first, so that short pairs are not judged by a few letters."""
    max_dropped_share: float = Field(0.1, ge=0.0, le=1.0)
    """A corpus that loses a larger share of its rows stops the job with the reasons."""

    @classmethod
    def only(
        cls,
        location: Location,
        source: str,
        target: str,
        split: str,
        configuration: str | None,
        revision: str | None,
    ) -> "Data":
        """One data set by itself, as `validation`: to be scored, pinned or translated."""
        return cls(
            train=location,
            validation=location,
            validation_split=split,
            source=source,
            target=target,
            configuration=configuration,
            revision=revision,
        )

    @property
    def scored_on(self) -> Literal["validation", "test"]:
        """Which of them the finished model is scored on."""
        return "validation" if self.test is None else "test"

    @property
    def ingredients(self) -> list[tuple[Location, "Data", float]]:
        """What training mixes: each corpus' location, this section as it applies to it, and its
        weight."""
        mixture: list[tuple[Location, Data, float]] = []
        for each in self.train if isinstance(self.train, list) else [self.train]:
            if not isinstance(each, Ingredient):
                return [(cast(Location, self.train), self, 1.0)]
            own = each.model_dump(exclude={"location", "weight", "split"}, exclude_none=True)
            own |= {"train": each.location, "train_split": each.split or self.train_split}
            mixture.append((each.location, self.model_copy(update=own), each.weight))
        return mixture
