"""The routes of the page, and how errors are answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..errors import InputError
from .guard import Guard, Refused, refusal
from .jobs import SORRY
from .sessions import Full
from .site import Site

SWEEP_S = 5.0


def explain(request: Request, error: Exception) -> Response:
    """Every error as a status and one sentence."""
    if isinstance(error, Refused):
        return refusal(error)
    if isinstance(error, InputError | Full):
        status = HTTPStatus.BAD_REQUEST if isinstance(error, InputError) else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse({"error": str(error)}, status)
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase.lower()
        return JSONResponse({"error": phrase}, error.status_code, error.headers)
    return JSONResponse({"error": SORRY}, HTTPStatus.INTERNAL_SERVER_ERROR)


def build(site: Site) -> Guard:
    """The application; its worker starts with it."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            site.sessions.sweep()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(site.jobs.run()), asyncio.create_task(sweep())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    routes: list[tuple[str, str, Any]] = [
        ("GET", "/", site.page),
        ("GET", "/static/{name}", site.static),
        ("POST", "/api/session", site.enter),
        ("GET", "/api/events", site.events),
        ("POST", "/api/uploads", site.upload),
        ("POST", "/api/jobs", site.ask),
        ("GET", "/api/jobs/{name}", site.look),
        ("DELETE", "/api/jobs/{name}", site.cancel),
        ("GET", "/api/results/{name}", site.result),
        ("DELETE", "/api/session", site.forget),
        ("GET", "/health", site.health),
        ("GET", "/metrics", site.figures),
    ]
    app = Starlette(
        routes=[Route(path, endpoint, methods=[method]) for method, path, endpoint in routes],
        exception_handlers=dict.fromkeys((Refused, InputError, Full, HTTPException, Exception), explain),
        lifespan=lifespan,
    )
    config = site.config
    # around errors, too; who knows the password may also come by another name, through a proxy on this machine
    return Guard(app, site.metrics, config.password, config.loopback and config.password is None)
