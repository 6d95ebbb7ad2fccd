"""The server's state, and what it answers: static files, uploads, jobs, their events and results, health, metrics."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from .. import __version__
from ..cascade.config import load_config
from ..cascade.models import find_model
from ..errors import InputError
from ..images import PHOTO
from ..transmitter import top_rung
from . import settings
from .events import stream
from .guard import Bodies, Refused
from .jobs import Job, Jobs
from .limits import Limits
from .metrics import MEDIA_TYPE, Metrics, resident_bytes
from .session import Session
from .sessions import Sessions
from .worker import Worker

COOKIE = "semcast"
PIECE_BYTES = 64 << 10
STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What `semcast web` was started with."""

    model: str = "small"
    password: str | None = None
    loopback: bool = True  # bound to this machine only
    limits: Limits = field(default_factory=Limits)


class Site:
    """The server's state, and a method for each route."""

    def __init__(self, config: Config):
        self.config, self.limits, self.metrics = config, config.limits, Metrics()
        folder = find_model(config.model).folder
        assert folder is not None  # `find_model` refuses a model that has not been fetched
        self.top = top_rung(load_config(folder))
        self.jobs = Jobs(Worker(config.model, config.limits), config.limits, self.metrics)
        self.sessions = self.jobs.sessions = Sessions(config.limits, self.jobs.leave)
        self.bodies = Bodies(config.limits)
        files = [path for path in STATIC.iterdir() if path.suffix in TYPES]
        self.files = {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in files}
        self.files["sample.jpg"] = PHOTO.read_bytes(), "image/jpeg"

    def session(self, request: Request) -> Session:
        """The session of a request. Raises Refused if there is none any more."""
        session = self.sessions.find(request.cookies.get(COOKIE))
        if session is None:
            raise Refused(HTTPStatus.FORBIDDEN, "your session is over, and its pictures are gone; load the page again")
        return session

    async def page(self, request: Request) -> Response:
        return self.file("index.html", request)

    async def static(self, request: Request) -> Response:
        return self.file(request.path_params["name"], request)

    def file(self, name: str, request: Request) -> Response:
        """One of the files that were read when the server started."""
        if name not in self.files:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        data, media_type = self.files[name]
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(data, media_type=media_type, headers=headers)

    async def enter(self, request: Request) -> Response:
        """Start a session, unless there is one, and say what the page offers.

        The page asks for it, for a link from elsewhere loads the page without the cookie of a session that is open.
        """
        about = {"version": __version__, "model": Path(self.config.model).name}
        response = JSONResponse(about | settings.offered(self.limits, self.top))
        if self.sessions.find(request.cookies.get(COOKIE)) is None:
            token, secure = self.sessions.start().token, request.url.scheme == "https"
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response

    async def upload(self, request: Request) -> Response:
        """Keep a photo, a recording or a frame for the session; nothing is decoded here."""
        session = self.session(request)
        data = await self.bodies.read(request, self.limits.upload_bytes)
        if not data:
            raise InputError("the file is empty")
        self.metrics.uploads += 1
        self.metrics.upload_bytes += len(data)
        return JSONResponse({"upload": self.sessions.keep(session, data)}, HTTPStatus.CREATED)

    async def ask(self, request: Request) -> Response:
        """Let a job wait for its turn: {"kind": "link", "settings": {...}}."""
        session = self.session(request)
        try:
            asked = json.loads(await self.bodies.read(request, self.limits.json_bytes))
        except (ValueError, RecursionError):
            raise InputError("the settings are no JSON") from None
        if not isinstance(asked, dict) or set(asked) - {"kind", "settings"}:
            raise InputError("a job has a kind and settings")
        kind, chosen = asked.get("kind"), asked.get("settings", {})
        checked = settings.check(kind, chosen, self.limits, self.top)
        ours = checked.get("picture") == settings.SAMPLE
        name = checked.pop("picture", "") or checked.pop("upload", "")
        if not ours and name not in session.uploads:
            raise InputError("that file is not here any more; choose it again")
        job = Job(session, str(kind), checked, session.uploads.get(name), name)
        self.sessions.make_room(session, 0)
        self.jobs.add(job)
        return JSONResponse(job.as_json(), HTTPStatus.ACCEPTED)

    def job(self, request: Request) -> Job:
        found = self.session(request).jobs.get(request.path_params["name"])
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such job in your session")
        return found

    async def look(self, request: Request) -> Response:
        return JSONResponse(self.job(request).as_json())

    async def cancel(self, request: Request) -> Response:
        job = self.job(request)
        if not job.ended:
            self.jobs.cancel(job)
        return JSONResponse(job.as_json())

    async def result(self, request: Request) -> Response:
        blob = self.session(request).find_blob(request.path_params["name"])
        if blob is None:
            raise Refused(HTTPStatus.NOT_FOUND, "this result is not here any more")
        named = {"content-disposition": f'attachment; filename="{blob.filename}"'} if blob.filename else {}
        headers = named | {"content-length": str(len(blob.data))}
        return StreamingResponse(pieces(blob.data), media_type=blob.media_type, headers=headers)

    async def events(self, request: Request) -> Response:
        session = self.session(request)
        if len(session.streams) >= self.limits.session_streams:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "the page is open too often; close one of its windows")
        return StreamingResponse(
            stream(session, self.sessions), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )

    async def forget(self, request: Request) -> Response:
        """End the session at once."""
        self.sessions.end(self.session(request))
        response = JSONResponse({})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def health(self, request: Request) -> Response:
        ready = self.jobs.ready
        state = "ok" if ready else "broken" if self.jobs.broken else "starting"
        return JSONResponse({"state": state}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def figures(self, request: Request) -> Response:
        gauges: dict[str, tuple[str, float]] = {
            "sessions": ("open sessions", len(self.sessions.open)),
            "session_bytes": ("bytes that sessions keep", self.sessions.size_bytes),
            "queue_jobs": ("jobs that wait", len(self.jobs.waiting)),
            "running_jobs": ("jobs that run", int(self.jobs.running is not None)),
            "ready": ("1 when the networks are loaded", int(self.jobs.ready)),
            "resident_bytes": ("main memory of the server", resident_bytes(None)),
            "worker_resident_bytes": ("main memory of the worker", resident_bytes(self.jobs.worker.pid or 0)),
        }
        return Response(self.metrics.text(gauges), headers={"content-type": MEDIA_TYPE})


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """For those who read slowly: what is not sent yet is not copied."""
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
