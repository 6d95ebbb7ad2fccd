"""Sockets: uvicorn with a time limit for the headers of requests, which it does not have itself."""

import asyncio
import socket
import webbrowser
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import InputError
from .app import build
from .site import Config, Site

HEADER_BYTES = 16 << 10
KEEP_ALIVE_S = 20
BACKLOG = 256


class Prompt(H11Protocol):
    """Closes connections that begin a request and do not get to the end of its header."""

    header_s = 10.0
    late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.late:
            self.late.cancel()
        super().connection_lost(exc)

    def watch(self) -> None:
        """Run the clock while a header is awaited."""
        awaited = self.conn.their_state is h11.IDLE
        if awaited and not self.late:
            self.late = self.loop.call_later(self.header_s, self.transport.close)
        elif not awaited and self.late:
            self.late.cancel()
            self.late = None


class Server(uvicorn.Server):
    """Ends all sessions before it waits for their streams to close."""

    def __init__(self, config: uvicorn.Config, site: Site):
        super().__init__(config)
        self.site = site

    async def shutdown(self, sockets: Any = None) -> None:
        for session in list(self.site.sessions.open.values()):
            self.site.sessions.end(session)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is open already. Raises InputError if the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # whoever asks before the server has started waits
    except OSError as error:
        raise InputError(f"cannot serve at {host}, port {port}: {error.strerror}; choose another --port") from None
    return bound


def make_server(config: Config) -> Server:
    """A server that is not running yet."""
    site = Site(config)
    protocol = type("Protocol", (Prompt,), {"header_s": config.limits.header_s})
    return Server(
        uvicorn.Config(
            build(site),
            http=protocol,
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=config.limits.connections,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=HEADER_BYTES,
        ),
        site,
    )


def serve(config: Config, bound: socket.socket, page: str | None = None) -> None:
    """Serve at a bound socket until interrupted. page: an address to open in the browser of this machine."""
    if page:
        webbrowser.open(page)
    make_server(config).run([bound])
