"""The server, from MODEL to its last answer."""

import asyncio
import os
import socket

from heliograph.pipeline.cluster.start import start_ray
from heliograph.pipeline.request.errors import RequestError
from heliograph.pipeline.serving.answers import Queue
from heliograph.pipeline.serving.app import build_application
from heliograph.pipeline.serving.http import run_server, url_of
from heliograph.pipeline.serving.limits import TOKEN_VARIABLE, Limits
from heliograph.pipeline.serving.metrics import Metrics
from heliograph.pipeline.serving.versions import Fleet, Rotation
from heliograph.pipeline.tracking.server import say


def serve_model(
    model: str, bound: socket.socket, fleet: Fleet, limits: Limits, watch_seconds: float
) -> None:
    """Serve a model until SIGINT or SIGTERM, which becomes a KeyboardInterrupt when all requests
    that had come are answered.

    Args:
        model: any MODEL, see `model_uri`.
        bound: the address, as `serve_http.bind` gave it.
        watch_seconds: how often the registry is asked where the alias is; 0: never.

    Raises:
        RequestError: the model is not there, the cluster too small, or the token too short.
    """
    token = _read_token()
    start_ray()
    rotation = Rotation(model, fleet, limits)
    queue = Queue(limits.queue)
    metrics = Metrics(lambda: queue.waiting)
    try:
        rotation.start()
        door = build_application(rotation, limits, metrics, queue, token)
        version = rotation.current.number
        name = model if version is None else f"{model}, version {version},"
        say(f"heliograph: {name} on {url_of(bound)}{' with a token' if token else ''}")
        asyncio.run(_serve(door, rotation, metrics, bound, limits, watch_seconds))
    finally:
        rotation.stop()


async def _serve(
    door: object,
    rotation: Rotation,
    metrics: Metrics,
    bound: socket.socket,
    limits: Limits,
    watch_seconds: float,
) -> None:
    watching = asyncio.create_task(rotation.watch(watch_seconds, metrics))
    try:
        await run_server(door, bound, limits)
    finally:
        watching.cancel()


def _read_token() -> str | None:
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None and len(token) < 16:
        raise RequestError(
            f"{TOKEN_VARIABLE} has {len(token)} characters, which can be guessed; at least 16"
        )
    return token
