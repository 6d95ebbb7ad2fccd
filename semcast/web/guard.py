"""Who may ask for what: host, password, origin, the size and the pace of bodies, and the headers of every answer."""

import asyncio
import base64
import binascii
import hmac
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .metrics import Metrics

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/health",)  # answered without a password
WRONG_S = 1.0  # by which the answer to a wrong password is late
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=(), payment=(), usb=()",
}


class Refused(Exception):
    """A request that is not answered: a status and one sentence."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None):
        self.status, self.sentence, self.headers = status, sentence, headers or {}


class Guard:
    """Middleware around all routes.

    own_names: answer only requests for the names of this machine.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, password: str | None, own_names: bool):
        self.app, self.metrics, self.password, self.own_names = app, metrics, password, own_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.responses[str(message["status"])[0]] += 1
                names = {name for name, _ in message["headers"]}
                own = {"cache-control": "no-store"} | HEADERS
                if request.method not in SAFE and message["status"] >= HTTPStatus.BAD_REQUEST:
                    own["connection"] = "close"  # what is left of the body is not waited for
                added = [(k.encode(), v.encode()) for k, v in own.items() if k.encode() not in names]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            check_host(request, self.own_names)
            check_password(request, self.password)
            check_origin(request)
        except Refused as refused:
            if refused.status == HTTPStatus.UNAUTHORIZED and "authorization" in request.headers:
                await asyncio.sleep(WRONG_S)
            return await refusal(refused)(scope, receive, answer)
        await self.app(scope, receive, answer)


def refusal(refused: Refused) -> JSONResponse:
    return JSONResponse({"error": refused.sentence}, refused.status, refused.headers)


def check_host(request: Request, own_names: bool) -> None:
    """Another name than this machine's own may have been pointed here by a hostile page."""
    if own_names and host_of(request.headers.get("host", "")) not in LOOPBACK:
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server is for its own machine; ask for localhost")


def host_of(netloc: str) -> str:
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


def check_password(request: Request, password: str | None) -> None:
    """HTTP Basic with any name. The comparison takes equally long for all passwords."""
    if password is None or request.url.path in OPEN:
        return
    kind, _, coded = request.headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(coded, validate=True).partition(b":")[2] if kind.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        given = b""
    if not hmac.compare_digest(given, password.encode()):
        challenge = {"www-authenticate": 'Basic realm="semcast", charset="UTF-8"'}
        raise Refused(HTTPStatus.UNAUTHORIZED, "this page needs a password", challenge)


def check_origin(request: Request) -> None:
    """Pages of other sites may not change anything here."""
    if request.method in SAFE:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    foreign = site is not None and site != "same-origin"
    if origin is not None and not foreign:
        try:
            foreign = urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
        except ValueError:
            foreign = True
    if foreign:
        raise Refused(HTTPStatus.FORBIDDEN, "this can only be asked from the page itself")


class Bodies:
    """Reads bodies of limited size at a limited pace, and not too many at once."""

    def __init__(self, limits: Limits):
        self.limits, self.in_flight_bytes = limits, 0

    async def read(self, request: Request, size_max: int) -> bytes:
        """The body of a request. Raises Refused."""
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the request does not say how long it is")
        expected = int(length[:20])
        if expected > size_max:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"this is larger than {show(size_max)}, the limit")
        if self.in_flight_bytes + expected > self.limits.in_flight_bytes:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "many files arrive just now; try again in a moment")
        self.in_flight_bytes += expected
        try:
            async with asyncio.timeout(self.limits.body_s):
                return await collect(request, size_max)
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the file arrives too slowly") from None
        except ClientDisconnect:
            raise Refused(HTTPStatus.BAD_REQUEST, "the file did not arrive as a whole") from None
        finally:
            self.in_flight_bytes -= expected


async def collect(request: Request, size_max: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > size_max:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"this is larger than {show(size_max)}, the limit")
    return bytes(body)


def show(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes >> 10} KiB"
