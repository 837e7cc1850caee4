"""The REST interface, and the one application that carries page and tools as well."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ovrs import __version__
from ovrs.errors import ConfigError, UserError
from ovrs.serve.limits import Gone, TooLarge
from ovrs.serve.service import Service, reply
from ovrs.serve.session import FILES

LOOPBACK = ("127.0.0.1", "localhost")
_QUESTION_BYTES = 1 << 20
_TIDY_SECONDS = 60


class Question(BaseModel):
    """Classes, with ``|`` between synonyms; a threshold; colours by class name."""

    model_config = ConfigDict(extra="forbid")

    classes: list[str] | None = None
    threshold: float | None = None
    colours: dict[str, str] = {}


def build_app(service: Service, host: str = LOOPBACK[0], lifespan: Callable[[], Any] | None = None) -> FastAPI:
    """Return the application with the REST interface.

    Args:
        service: answers.
        host: the address that the server listens on. On loopback, requests that name another host are refused: a web
            page elsewhere could otherwise point its own name at this machine and read along.
        lifespan: gives an asynchronous context that is open while the application runs.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy(service))
        try:
            async with lifespan() if lifespan else _nothing():
                yield
        finally:
            tidying.cancel()
            service.close()

    app = FastAPI(title="OVRS", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK) if host in LOOPBACK else ["*"])

    @app.exception_handler(Exception)
    @app.exception_handler(UserError)
    async def _say(request: Request, error: Exception) -> JSONResponse:
        status, line = reply(error)
        return JSONResponse({"error": line}, status, {"Retry-After": "60"} if status == 503 else None)

    @app.exception_handler(RequestValidationError)
    async def _say_what_is_wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": _line(error.errors())}, 422)

    @app.get("/v1/limits")
    def limits() -> dict[str, Any]:
        return vars(service.limits)

    @app.post("/v1/maps", status_code=201)
    async def upload(
        request: Request, name: str = "image", bands: Annotated[tuple[int, ...], Query(max_length=3)] = ()
    ) -> dict[str, Any]:
        path = service.new_upload()
        try:
            with open(path, "wb") as stream:
                count = 0
                async for chunk in request.stream():
                    count += len(chunk)
                    service.limits.check_bytes(count)
                    stream.write(chunk)
        except BaseException:
            service.discard(path)
            raise
        session = await run_in_threadpool(service.open, path, name, bands)
        return session.summary()

    @app.get("/v1/maps/{key}")
    def summary(key: str) -> dict[str, Any]:
        return service.session(key).summary()

    @app.put("/v1/maps/{key}/classes")
    async def ask(key: str, request: Request) -> dict[str, Any]:
        question = await _question(request)
        return await run_in_threadpool(answer, service, key, question)

    @app.get("/v1/maps/{key}/pixel")
    def pixel(key: str, x: int, y: int) -> dict[str, Any]:
        return service.session(key).pixel(x, y)

    @app.get("/v1/maps/{key}/view.png")
    def view(key: str, opacity: float = 0.5) -> Response:
        return Response(png(service, key, opacity), media_type="image/png")

    @app.get("/v1/maps/{key}/files/{ending}")
    def file(key: str, ending: str) -> FileResponse:
        if ending not in FILES:
            raise Gone(f"there is no file {ending!r}; there are {', '.join(FILES)}.")
        path = service.session(key).file(ending)
        return FileResponse(path, filename=path.name)

    @app.delete("/v1/maps/{key}", status_code=204)
    def delete(key: str) -> None:
        service.session(key)
        service.forget(key)

    return app


def answer(service: Service, key: str, question: Question) -> dict[str, Any]:
    """Ask a session and return its summary."""
    session = service.session(key)
    if question.classes is not None:
        session.ask(question.classes, question.threshold)
    if question.colours:
        session.recolour(question.colours)
    return session.summary()


def png(service: Service, key: str, opacity: float) -> bytes:
    """Return the view of a session as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(service.session(key).view(opacity)).save(stream, "PNG")
    return stream.getvalue()


async def _question(request: Request) -> Question:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _QUESTION_BYTES:
            raise TooLarge("the question is longer than 1 MiB; send classes only.")
    try:
        return Question.model_validate_json(bytes(body))
    except ValidationError as error:
        raise ConfigError(_line(error.errors(include_url=False))) from None


def _line(errors: Any) -> str:
    """Return the first of pydantic's errors as a line."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}."


async def _tidy(service: Service) -> None:
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        await run_in_threadpool(service.tidy)


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield
