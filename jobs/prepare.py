"""`heliograph prepare RECIPE [key.path=value …]`: tokenize once for all later starts of a job."""

from typing import Any

from pydantic_core import to_jsonable_python

from heliograph.jobs.command import Answer, Overrides, command, run_alone
from heliograph.jobs.train import RecipePath
from heliograph.pipeline.request.recipe_file import load_recipe


@command
def prepare(recipe: RecipePath, overrides: Overrides = None) -> Answer:
    """Write a recipe's corpora, tokenizer and token ids to its storage, where train finds them.

    train does without token ids, and then tokenizes while it trains, each epoch again. The steps
    are the same either way.
    """
    loaded = load_recipe(recipe, overrides)
    from heliograph.pipeline.corpus.found_data import find_recipe_data
    from heliograph.pipeline.storage.filesystems import absolute

    found = find_recipe_data(loaded.data, absolute(loaded.storage))
    from heliograph.pipeline.cluster.nodes import check_shared
    from heliograph.pipeline.cluster.start import start_ray
    from heliograph.pipeline.sources.source import describe
    from heliograph.pipeline.steps.prepare import prepare as run
    from heliograph.pipeline.tracking.server import say

    start_ray()
    check_shared(absolute(loaded.storage), "storage")
    prepared = run(loaded, found, tokenize=True)
    for told in prepared.told:
        say(told)
    assert prepared.tokens is not None
    corpora: list[dict[str, Any]] = [
        {
            "location": to_jsonable_python(location, exclude_none=True),
            "pairs": text.rows,
            "dropped": text.dropped,
            "digest": text.digest,
            "folder": tokens.folder,
            "tokens": tokens.identity,
        }
        for text, tokens, (location, _, _) in zip(
            prepared.texts.corpora,
            prepared.tokens.corpora,
            loaded.data.ingredients,
            strict=True,
        )
    ]
    result = {"corpora": corpora, "tokenizer": prepared.tokenizer}
    names = [describe(location) for location, _, _ in loaded.data.ingredients]
    return Answer("\n".join(map(_describe, names, corpora)), result)


def _describe(name: str, corpus: dict[str, Any]) -> str:
    tokens, dropped = corpus["tokens"], corpus["dropped"]
    lost = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count)
    return (
        f"{name}: {corpus['pairs']} pairs"
        + (f" (dropped: {lost})" if lost else "")
        + f", {tokens['source_tokens']} source and {tokens['target_tokens']} target tokens in "
        + f"{corpus['folder']}, sha256 {tokens['sha256'][:12]}"
    )


if __name__ == "__main__":
    run_alone(prepare)
