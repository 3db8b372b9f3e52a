"""`heliograph serve MODEL`: translations over HTTP, and a page for people."""

from typing import Annotated

import typer

from heliograph.jobs.command import Answer, Model, command, run_alone
from heliograph.jobs.evaluate import Engine
from heliograph.pipeline.request.model_uri import check_model
from heliograph.pipeline.serving.limits import read_limits

Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0: all of them.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")]
Replicas = Annotated[int, typer.Option(min=1, help="Copies of the model that translate.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="Half a GPU for each replica.")]
Watch = Annotated[
    float, typer.Option(min=0, help="Seconds between looks where the alias is; 0: never look.")
]
Sentences = Annotated[
    int | None, typer.Option(help="Texts in a request, at most.", show_default="64")
]
Tokens = Annotated[int | None, typer.Option(help="Tokens in a text, at most.", show_default="256")]
Beam = Annotated[int | None, typer.Option(help="The widest beam.", show_default="8")]
QueueSize = Annotated[
    int | None, typer.Option("--queue", help="Texts that may wait.", show_default="128")
]
Batch = Annotated[int | None, typer.Option(help="Texts translated together.", show_default="32")]

Seconds = Annotated[float | None, typer.Option(help="For one answer, at most.", show_default="30")]


@command
def serve(
    model: Model,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    replicas: Replicas = 1,
    gpu: Gpu = False,
    engine: Engine = "torch",
    watch: Watch = 5.0,
    sentences: Sentences = None,
    tokens: Tokens = None,
    beam: Beam = None,
    queue: QueueSize = None,
    batch: Batch = None,
    seconds: Seconds = None,
) -> Answer:
    """Serve a model over HTTP, with a page for people, until Ctrl-C.

    An alias such as @champion is followed: when it moves, the server changes to the new version
    without dropping a request. If HELIOGRAPH_SERVE_TOKEN is set, clients must show it.
    """
    limits = read_limits(
        sentences=sentences, tokens=tokens, beam=beam, queue=queue, batch=batch, seconds=seconds
    )
    check_model(model)  # at once: what follows loads torch, Ray and MLflow
    from heliograph.pipeline.serving.http import bind

    bound = bind(host, port)
    from heliograph.pipeline.serving.serve import serve_model
    from heliograph.pipeline.serving.versions import Fleet

    serve_model(model, bound, Fleet(replicas, gpu, engine), limits, watch)
    return Answer("", {})


if __name__ == "__main__":
    run_alone(serve)
