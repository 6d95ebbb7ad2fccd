"""Sessions: what visitors brought and what was made of it, in memory only, until they leave.

A session is a random token in a cookie. It ends a minute after its last page was closed, or when nobody asked for it for
ten minutes, or when its visitor says so; with it go its pictures, its jobs and their results.
"""

import secrets
from collections.abc import Callable
from time import monotonic

from .limits import Limits
from .session import Session


class Full(Exception):
    """There is no room; the message says what to do."""


class Sessions:
    """All visitors of one server."""

    def __init__(self, limits: Limits, leave: Callable[[Session], None], clock: Callable[[], float] = monotonic):
        self.limits, self.leave, self.clock = limits, leave, clock
        self.open: dict[str, Session] = {}

    @property
    def size_bytes(self) -> int:
        return sum(session.size_bytes for session in self.open.values())

    def find(self, token: str | None) -> Session | None:
        """The session of a token, which counts as seen now."""
        session = self.open.get(token or "")
        if session:
            session.seen = self.clock()
        return session

    def start(self) -> Session:
        """A new session. Raises Full if there are too many, and none that is empty and without a page."""
        self.sweep()
        if len(self.open) >= self.limits.sessions:
            empty = [s for s in self.open.values() if not (s.streams or s.uploads or s.jobs)]
            if not empty:
                raise Full("too many people are here just now; try again in a minute")
            self.end(min(empty, key=lambda s: s.seen))
        session = Session(self.clock())
        self.open[session.token] = session
        return session

    def end(self, session: Session) -> None:
        """Forget all of a session; its jobs are cancelled."""
        self.open.pop(session.token, None)
        session.ended = True
        self.leave(session)
        session.uploads.clear()
        session.jobs.clear()
        session.wake()

    def sweep(self) -> None:
        """End the sessions that nobody looks at any more; before that, their jobs."""
        now = self.clock()
        for session in list(self.open.values()):
            if not session.streams and session.left is not None and now - session.left > self.limits.absent_s:
                self.leave(session)
            limit_s = self.limits.idle_s if session.left is None else self.limits.gone_s
            if not session.streams and now - max(session.seen, session.left or 0) > limit_s:
                self.end(session)

    def keep(self, session: Session, data: bytes) -> str:
        """Keep an upload and return its name; the oldest of the session makes room. Raises Full."""
        oldest = next(iter(session.uploads)) if len(session.uploads) >= self.limits.session_uploads else ""
        self.make_room(session, len(data) - len(session.uploads.get(oldest, b"")))
        session.uploads.pop(oldest, None)
        name = secrets.token_urlsafe(12)
        session.uploads[name] = data
        return name

    def make_room(self, session: Session, size_bytes: int) -> None:
        """Drop a session's oldest finished jobs until so many bytes more may be kept. Raises Full if they may not."""
        finished = [job for job in session.jobs.values() if job.ended]
        excess = len(session.jobs) - self.limits.session_kept
        for job in finished:
            if session.size_bytes + size_bytes <= self.limits.session_bytes and excess <= 0:
                break
            del session.jobs[job.name]
            excess -= 1
        if session.size_bytes + size_bytes > self.limits.session_bytes:
            raise Full("this is more than one session may keep; forget the pictures of before")
        if self.size_bytes + size_bytes > self.limits.total_bytes:
            raise Full("the server's memory is full just now; try again in a minute")
