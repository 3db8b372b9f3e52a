"""How sentences are decoded: the recipe's section `evaluate`, and what somebody who asks for
translations may ask for, of sentences and of whole data sets."""

from typing import Any, Literal

from pydantic import Field, model_validator

from heliograph.pipeline.request.data import Section

BleuTokenizer = Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "flores200", "char", "none"]
"""Of sacrebleu's. ja-mecab and ko-mecab need one more package, flores200 a download."""


class Search(Section):
    """How a sentence is decoded."""

    beam: int = Field(5, ge=1)
    length_penalty: float = Field(1.0, ge=0)
    """Hypotheses are ranked by log-probability / length ** this; 0 favours short ones."""
    length_offset: float = Field(0.0, ge=0)
    """The length is taken as (this + tokens) / (this + 1). 5, with a penalty of 0.6, is what the
    paper decodes with (section 6.1; Wu et al., 2016), which favours length less than 0 does."""
    max_length_factor: float = Field(2.0, gt=0)
    max_length_extra: int = Field(20, ge=0)
    """A translation ends at source tokens × factor + extra."""
    min_length_factor: float = Field(0.0, ge=0)
    """A translation has at least source tokens × this, in whole tokens."""
    no_repeat_ngram: int = Field(0, ge=0)
    """No sequence of this many tokens comes twice in a translation. 0: any may."""
    tokens_per_batch: int = Field(4096, ge=1)
    """Source tokens decoded together, beams not counted."""

    def search_settings(self) -> dict[str, Any]:
        """These settings alone, of whatever more there are."""
        return self.model_dump(include=set(Search.model_fields))


class Evaluate(Search):
    """How a finished model is decoded and scored; recorded with every score."""

    tokenize: BleuTokenizer | None = None
    """What counts as a word for BLEU: one of sacrebleu's tokenizers. None: by the script of the
    targets, see `heliograph.pipeline.scoring.evaluate.word_cutter`."""


class Sampling(Section):
    """A translation drawn at random instead of searched for."""

    temperature: float = Field(1.0, gt=0)
    """Below 1: likelier tokens more often than the model says."""
    top_k: int = Field(0, ge=0)
    """Only the likeliest this many tokens are drawn. 0: all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest tokens that together have this probability are drawn."""
    seed: int = Field(1, ge=0)
    """The same seed, sentence and settings draw the same translation, on a CPU whatever is in the
    batch; a GPU rounds by it."""


class Decoding(Search):
    """What somebody who asks for translations may ask for besides."""

    n_best: int = Field(1, ge=1)
    """Translations of each sentence, the best first; at most `beam`, unless they are sampled."""
    sampling: Sampling | None = None
    """None: beam search."""

    @classmethod
    def like(cls, settings: Search, **wanted: Any) -> "Decoding":
        """As `settings` have it, but for what is wanted."""
        return cls(**settings.model_dump(include=set(cls.model_fields)) | wanted)

    @model_validator(mode="after")
    def _beam_holds_them(self) -> "Decoding":
        if self.sampling is None and self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} must be at most beam={self.beam}")
        return self


class Bulk(Section):
    """How a whole data set is translated, besides the decoding."""

    max_characters: int | None = Field(None, ge=1)
    """A longer source is not translated and says so: attention's memory grows with the square of
    its length. None: `data.max_characters` of the model's recipe, for training saw none longer."""
    part_rows: int | None = Field(None, ge=1, le=10_000_000)
    """Rows of an output file, which one worker translates and which is done again if that worker
    dies. None: a 64th of all rows, but at least 256 and at most 32,768."""
    prefix: str = ""
    """In front of the names of the new columns, where the data set has such columns already."""
    scores: bool = False
    """With a column `score`: log-probability in nats / tokens ** length penalty."""
