"""From a recipe to what training reads: corpora, tokenizer and, if asked for, token ids.

All of it is kept on storage under a hash of what determines it, so that a second job, and a second
start of the same one, finds it there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heliograph.pipeline.corpus.corpus import Corpus, prepare_corpus
from heliograph.pipeline.corpus.found_data import FoundData
from heliograph.pipeline.corpus.mixture import Mixture
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.recipe import Augment, Recipe
from heliograph.pipeline.sources.source import describe
from heliograph.pipeline.steps.budget import check_budget, check_weights
from heliograph.pipeline.steps.tokenizer import Tokenizer, train_tokenizer
from heliograph.pipeline.steps.tokens import find_tokens, prepare_tokens
from heliograph.pipeline.storage.filesystems import absolute


@dataclass(frozen=True)
class Prepared:
    """What a job is trained on."""

    texts: Mixture
    validation: Corpus
    test: Corpus | None
    """None: the recipe keeps none apart."""
    tokenizer: str
    """Path or URL of its tokenizer.json."""
    tokens: Mixture | None
    """The pairs of `texts` as token ids, where these were prepared."""
    told: tuple[str, ...] = ()
    """What the user should know before training: pairs that are left out, steps of another size."""

    @property
    def corpora(self) -> list[Corpus]:
        """Of each of the recipe's data sets, in the order of `find_recipe_data`."""
        test = [] if self.test is None else [self.test]
        return [*self.texts.corpora, self.validation, *test]

    @property
    def evaluation(self) -> Corpus:
        """What the finished model is scored on."""
        return self.test or self.validation

    @property
    def folders(self) -> list[str]:
        """All that the job reads, on its storage."""
        used = [*self.corpora, *(self.tokens.corpora if self.tokens else ())]
        return [*(corpus.folder for corpus in used), self.tokenizer.rpartition("/")[0]]

    @property
    def training(self) -> Mixture:
        """What the stream reads. The step list is the same with tokens or texts."""
        return self.tokens or self.texts


def prepare(recipe: Recipe, found: Mapping[str, FoundData], *, tokenize: bool) -> Prepared:
    """Make what the recipe's job reads, or find it made.

    Args:
        found: by `find_recipe_data`.
        tokenize: whether to write token ids where there are none; those that are there are used.

    Raises:
        RequestError: the data cannot be read, or too much of it cannot be used; or tokens are to be
            written that training would not read.
    """
    sampled = recipe.augment != Augment()
    if tokenize and sampled:
        raise RequestError(
            "augment cuts words into other tokens each time, so that there are none to write; "
            "leave its keys out, or train without preparing"
        )
    storage, rows = absolute(recipe.storage), recipe.batches.piece_rows
    enough = None
    if recipe.train.epochs is None and recipe.train.steps is not None:
        enough = recipe.train.steps * recipe.batches.tokens_per_step
    training = [each for key, each in found.items() if key.startswith("data.train")]
    told: list[str] = []
    corpora = [prepare_corpus(each, rows, storage, enough, told.append) for each in training]
    texts = Mixture(tuple(corpora), tuple(weight for *_, weight in recipe.data.ingredients))
    validation = prepare_corpus(found["data.validation"], rows, storage, tell=told.append)
    test = None
    if "data.test" in found:
        test = prepare_corpus(found["data.test"], rows, storage, tell=told.append)
    path = train_tokenizer(texts, recipe.tokenizer, storage, recipe.data.unicode)
    tokenizer = Tokenizer.load(path)
    ingredients = [
        (describe(each.location), corpus, each.data.max_dropped_share)
        for each, corpus in zip(training, corpora, strict=True)
    ]
    told += check_weights(texts)
    told += check_budget(ingredients, tokenizer, recipe.batches)
    told = [*dict.fromkeys(told)]
    if sampled:
        return Prepared(texts, validation, test, path, None, tuple(told))
    tokens = _tokens(corpora, tokenizer, storage, tokenize)
    mixture = Mixture(tokens, texts.weights) if tokens else None
    return Prepared(texts, validation, test, path, mixture, tuple(told))


def _tokens(
    corpora: Sequence[Corpus], tokenizer: Tokenizer, storage: str, tokenize: bool
) -> tuple[Corpus, ...] | None:
    """Of all corpora or of none: a window's tables are of one kind."""
    if tokenize:
        return tuple(prepare_tokens(corpus, tokenizer, storage) for corpus in corpora)
    found = [find_tokens(corpus, tokenizer, storage) for corpus in corpora]
    there = tuple(corpus for corpus in found if corpus is not None)
    return there if len(there) == len(corpora) else None
