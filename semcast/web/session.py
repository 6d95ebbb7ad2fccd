"""One visitor, and the pieces of work that were done for it: what was asked for, how it stands, and its results."""

import asyncio
import secrets
from time import monotonic
from typing import Any, NamedTuple

WAITING, RUNNING, DONE, REFUSED, CANCELLED, FAILED = "waiting", "running", "done", "refused", "cancelled", "failed"


class Blob(NamedTuple):
    """A result, as a browser fetches it."""

    data: bytes
    media_type: str
    filename: str  # for a download; "" to show it


class Job:
    """One piece of work for a session."""

    def __init__(self, session: "Session", kind: str, settings: dict[str, Any], upload: bytes | None, upload_name: str):
        self.name = secrets.token_urlsafe(12)
        self.session, self.kind, self.settings = session, kind, settings
        self.upload, self.upload_name = upload, upload_name
        self.state, self.version, self.number = WAITING, 0, 0
        self.ahead, self.wait_s, self.share, self.words, self.error = 0, 0.0, 0.0, "", ""
        self.blobs: dict[str, Blob] = {}
        self.results: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}
        self.added_s, self.started_s, self.ended_s = monotonic(), 0.0, 0.0
        self.unwanted = self.retried = False

    @property
    def ended(self) -> bool:
        return self.state not in (WAITING, RUNNING)

    @property
    def weight(self) -> float:
        """Its work over that at 512 pixels a side."""
        return (self.settings.get("side", 512) / 512) ** 2

    @property
    def size_bytes(self) -> int:
        return sum(len(blob.data) for blob in self.blobs.values())

    def changed(self) -> None:
        self.version += 1
        self.session.wake()

    def as_json(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "job": self.name,
            "kind": self.kind,
            "state": self.state,
            "ahead": self.ahead,
            "wait_s": round(self.wait_s, 1),
            "share": round(self.share, 3),
            "words": self.words,
            "error": self.error,
            "results": self.results,
            "figures": self.figures,
            "number": self.number,
            "added_s": round(self.added_s, 4),
            "started_s": round(self.started_s, 4),
            "ended_s": round(self.ended_s, 4),
        }


class Session:
    """One visitor."""

    def __init__(self, now: float):
        self.token = secrets.token_urlsafe(24)
        self.uploads: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.streams: set[asyncio.Event] = set()
        self.seen, self.ended = now, False
        self.left: float | None = None  # when the last of its pages was closed

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.uploads.values())) + sum(job.size_bytes for job in self.jobs.values())

    def wake(self) -> None:
        """Let the open pages look again."""
        for stream in self.streams:
            stream.set()

    def find_blob(self, name: str) -> Blob | None:
        return next((job.blobs[name] for job in self.jobs.values() if name in job.blobs), None)
