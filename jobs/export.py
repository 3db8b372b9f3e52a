"""`heliograph export MODEL`: the model for a faster engine, or for another library."""

from typing import Annotated, Any, Literal

import typer

from heliograph.jobs.command import Answer, Model, command, run_alone
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.request.model_uri import check_model

Format = Annotated[
    Literal["ctranslate2", "ctranslate2-int8", "ctranslate2-float16", "marian"],
    typer.Option(
        "--format",
        help="For an engine of that name: in float32, in int8 (a quarter the size), in float16 "
        "(needs a GPU). Or a Hugging Face MarianMT.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", help="The new folder of a MarianMT; other formats join the model."),
]
MaxLoss = Annotated[
    float,
    typer.Option("--max-loss", min=0, help="BLEU that int8 and float16 may lose, or are refused."),
]


@command
def export(
    model: Model, to: Format = "ctranslate2", output: Output = None, max_loss: MaxLoss = 0.3
) -> Answer:
    """Add to a model what a faster engine runs, checked against torch on its evaluation set.

    With --format marian, write it as a Hugging Face MarianMT to a folder of its own instead.
    """
    if (to == "marian") != (output is not None):
        raise RequestError("--output and --format marian belong together: give both, or neither")
    check_model(model)  # at once: what follows loads torch and MLflow
    from heliograph.pipeline.models.export import export_engine, export_marian

    if to == "marian" and output is not None:
        found = export_marian(model, output)
    else:
        found = export_engine(model, to, max_loss)
    return Answer(describe_export(found), found)


def describe_export(found: dict[str, Any]) -> str:
    """What was written, and how it compares with torch."""
    if not found.get("added", True):
        return f"{found['model']} has the export {found['format']} already"
    size = f"{found['bytes'] / 1e6:,.1f} MB"
    if found["format"] == "marian":
        return (
            f"{found['output']}: MarianMT, {size}; logits differ by at most "
            f"{found['logit_difference']:.1g} on {found['sentences']:,} pairs"
        )
    return (
        f"{found['model']}: {found['format']}, {size}\n"
        f"  {found['sentences']:,} sentences: {found['same']:.1%} as torch translates them, "
        f"BLEU {found['bleu']:.2f} (torch {found['torch_bleu']:.2f})\n"
        f"  heliograph translate {found['model']} --engine {found['format']}"
    )


if __name__ == "__main__":
    run_alone(export)
