"""The server as one ASGI application: the interface, its description, and the pages for people."""

import hashlib
import hmac
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from heliograph.pipeline.serving.answers import (
    Answer,
    Attention,
    Queue,
    Readiness,
    Service,
    Translations,
)
from heliograph.pipeline.serving.limits import TOKEN_VARIABLE, Limits
from heliograph.pipeline.serving.metrics import Metrics
from heliograph.pipeline.serving.requests import AttentionBody, Refused, TranslateBody
from heliograph.pipeline.serving.versions import Rotation

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGES = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/docs.js": ("docs.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
INTERFACE = ("/translate", "/attention", "/health", "/ready", "/metrics", "/openapi.json")
GUARDED = ("/translate", "/attention", "/metrics")
"""What needs the token. The rest tells nothing of the model, and a balancer has none."""

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Error(Answer):
    error: str
    """Why there is no other answer."""


def build_application(
    rotation: Rotation, limits: Limits, metrics: Metrics, queue: Queue, token: str | None
) -> "Door":
    """The ASGI application.

    Args:
        token: what clients must send as `Authorization: Bearer`; None: nothing.
    """
    api = FastAPI(
        title="Heliograph",
        version="1",
        description=_describe(rotation.model, limits, token is not None),
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
    )
    _add_interface(api, Service(rotation, limits, queue, metrics), metrics)
    _add_pages(api)
    api.add_exception_handler(Refused, _refuse)
    api.add_exception_handler(HTTPException, _refuse)
    api.add_exception_handler(Exception, _fail)
    return Door(api, metrics, token)


def _describe(model: str, limits: Limits, token: bool) -> str:
    guard = " Each needs the header `Authorization: Bearer TOKEN`." if token else ""
    return (
        f"Translation with {model}. At most {limits.sentences} texts in a request, "
        f"{limits.characters} characters and {limits.tokens} tokens in a text, a beam of "
        f"{limits.beam}; at most {limits.queue} texts wait.{guard} "
        'Whatever is refused is answered by {"error": "why"}.'
    )


def _add_interface(api: FastAPI, service: Service, metrics: Metrics) -> None:
    refusals = _refusals(400, 401, 408, 413, 415, 422, 429, 504)

    @api.post("/translate", openapi_extra=_takes(TranslateBody), responses=refusals)
    async def translate(request: Request) -> Translations:
        """Translate one sentence, or many."""
        return await service.translate(request)

    @api.post("/attention", openapi_extra=_takes(AttentionBody), responses=refusals)
    async def attention(request: Request) -> Attention:
        """Where each head looks in the source, at each token of a translation."""
        return await service.attention(request)

    @api.get("/health")
    async def health() -> dict[str, bool]:
        """Whether the process answers: if not, start it again."""
        return {"alive": True}

    @api.get("/ready", responses={503: {"model": Readiness}})
    async def ready(response: Response) -> Readiness:
        """Whether it can translate: if not, ask another server."""
        readiness = await service.readiness()
        response.status_code = 200 if readiness.ready else 503
        return readiness

    @api.get("/metrics", response_class=Response, responses=_refusals(401))
    async def prometheus() -> Response:
        """For Prometheus."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _takes(body: type[BaseModel]) -> dict[str, Any]:
    """The body's place in the description; it is read by `serve_requests.read_body`."""
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error} for status in statuses}


def _add_pages(api: FastAPI) -> None:
    folder = Path(__file__).parent / "page"

    def add(path: str, content: bytes, kind: str) -> None:
        async def page() -> Response:
            return Response(content, media_type=kind)

        api.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)

    for path, (file, kind) in PAGES.items():
        add(path, (folder / file).read_bytes(), kind)


async def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return JSONResponse({"error": error.message}, error.status, error.headers)
    assert isinstance(error, HTTPException)
    known = {
        404: f"there is nothing here; there is {', '.join(('/', '/docs', *INTERFACE))}",
        405: "this method is not taken here; see /docs",
    }
    message = known.get(error.status_code, str(error.detail))
    return JSONResponse({"error": message}, error.status_code, error.headers)


async def _fail(_: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    return JSONResponse({"error": "internal error; the server's log has it"}, 500)


class Door:
    """What every request passes: the token, the headers of every answer, and the count of it."""

    def __init__(self, application: Any, metrics: Metrics, token: str | None) -> None:
        self._application = application
        self._metrics = metrics
        self._token = None if token is None else _digest(f"Bearer {token}".encode())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["path"] in (*INTERFACE, *PAGES) else "other"
        start, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_ENCODED_HEADERS]
            await send(message)

        try:
            if path in GUARDED and not self._is_let_in(scope):
                message = {"error": f"show the token ({TOKEN_VARIABLE} of the server)"}
                refusal = JSONResponse(message, 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, answer)
            else:
                await self._application(scope, receive, answer)
        except Exception:
            if status != 500:  # else it was answered, and said
                raise
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)

    def _is_let_in(self, scope: Message) -> bool:
        if self._token is None:
            return True
        shown = dict(scope["headers"]).get(b"authorization", b"")
        # Of digests, whose equality takes as long to see wherever they differ, whatever was shown.
        return hmac.compare_digest(_digest(shown), self._token)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_ENCODED_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
