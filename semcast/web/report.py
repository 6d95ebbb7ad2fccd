"""What the worker is told of a job, and what a job tells while it runs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Cancelled(Exception):
    """Whoever asked for the job does not want it any more."""


class Task(NamedTuple):
    """What the worker is told of a job."""

    number: int
    kind: str
    settings: dict[str, Any]
    upload: bytes | None  # None: the photo that ships with semcast


class Report:
    """What a job tells while it runs. Every call raises Cancelled if the job is not wanted any more."""

    def __init__(self, send: Callable[[tuple], None], unwanted: Callable[[], bool] = lambda: False):
        self.send, self.unwanted = send, unwanted

    def _send(self, *message) -> None:
        if self.unwanted():
            raise Cancelled
        self.send(message)

    def progress(self, share: float, words: str) -> None:
        """share: how much is done, 0 to 1; words: what is being done."""
        self._send("progress", share, words)

    def result(self, name: str, data: bytes, media_type: str, filename: str = "", about: dict | None = None) -> None:
        """A result under a name that the page knows; about: what it is told of it."""
        self._send("result", name, data, media_type, filename, finite(about or {}))

    def keep(self, data: bytes) -> None:
        """Put this in place of the upload, which was larger."""
        self._send("keep", data)

    def figures(self, **values) -> None:
        """Figures of the job, numbers and words, that the page shows."""
        self._send("figures", finite(values))


def finite(value: Any) -> Any:
    """The same, with None for what JSON cannot say: infinite, not a number."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
