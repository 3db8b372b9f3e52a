"""`heliograph demo`: the whole flow on the embedded corpus, on this machine."""

from importlib.resources import as_file, files

import heliograph
from heliograph.jobs.command import Answer, Overrides, command, run_alone
from heliograph.jobs.evaluate import describe_scores
from heliograph.jobs.train import describe_result


@command
def demo(overrides: Overrides = None) -> Answer:
    """Train, register and promote a model on the embedded corpus, then use it."""
    with as_file(files("heliograph.recipes") / "demo.yaml") as path:
        recipe = heliograph.load_recipe(path, overrides or ())
    result = heliograph.train(recipe)
    from heliograph.pipeline.sources.embedded.grammar import AMBIGUOUS

    champion = f"models:/{recipe.model_name}@champion"
    sources = [source for source, _ in AMBIGUOUS]
    translations = heliograph.translate(champion, sources)
    scores = heliograph.evaluate(champion, "embedded:test", split="test")

    lines = ["", "Words translated by what surrounds them, in sentences that training never saw:"]
    for (source, expected), translation in zip(AMBIGUOUS, translations, strict=True):
        remark = "" if translation == expected else f"   (expected: {expected})"
        lines.append(f"  {source}  →  {translation}{remark}")
    lines += ["", "The champion on the held-out test set:", describe_scores(scores)]
    lines += ["", describe_result(result)]
    ambiguous = dict(zip(sources, translations, strict=True))
    return Answer("\n".join(lines), result | {"test": scores, "ambiguous": ambiguous})


if __name__ == "__main__":
    run_alone(demo)
