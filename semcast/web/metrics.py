"""Figures of the server in Prometheus' text format (version 0.0.4), without its library."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How often values lay below each of BUCKETS_S, their sum and their number."""

    def __init__(self):
        self.counts, self.sum_s, self.count = [0] * len(BUCKETS_S), 0.0, 0

    def add(self, seconds: float) -> None:
        self.counts = [n + (seconds <= bound) for n, bound in zip(self.counts, BUCKETS_S)]
        self.sum_s, self.count = self.sum_s + seconds, self.count + 1


class Metrics:
    """Counters since the server started."""

    def __init__(self):
        self.jobs: Counter[tuple[str, str]] = Counter()  # kind, outcome
        self.responses: Counter[str] = Counter()  # by the first digit of the status
        self.uploads, self.upload_bytes, self.restarts = 0, 0, 0
        self.waits, self.runs = Histogram(), Histogram()

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All figures; gauges: name -> (what it is, value now)."""
        lines: list[str] = []
        for name, (about, value) in gauges.items():
            lines += head(name, "gauge", about) + [f"semcast_web_{name} {value:.15g}"]
        jobs = [(f'{{kind="{kind}",outcome="{outcome}"}}', n) for (kind, outcome), n in sorted(self.jobs.items())]
        lines += counter("jobs_total", "jobs that ended", jobs)
        answers = [(f'{{class="{first}xx"}}', n) for first, n in sorted(self.responses.items())]
        lines += counter("responses_total", "responses by the class of their status", answers)
        lines += counter("uploads_total", "bodies that arrived", [("", self.uploads)])
        lines += counter("upload_bytes_total", "bytes of them", [("", self.upload_bytes)])
        lines += counter("worker_restarts_total", "times that the worker was started again", [("", self.restarts)])
        lines += histogram("job_wait_seconds", "from asking to the start", self.waits)
        lines += histogram("job_run_seconds", "of computing", self.runs)
        return "\n".join(lines) + "\n"


def head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP semcast_web_{name} {about}", f"# TYPE semcast_web_{name} {kind}"]


def counter(name: str, about: str, values: Iterable[tuple[str, int]]) -> list[str]:
    return head(name, "counter", about) + [f"semcast_web_{name}{labels} {value}" for labels, value in values]


def histogram(name: str, about: str, values: Histogram) -> list[str]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    counts = [*values.counts, values.count]
    rows = [f'semcast_web_{name}_bucket{{le="{bound}"}} {n}' for bound, n in zip(bounds, counts)]
    rows += [f"semcast_web_{name}_sum {values.sum_s:.15g}", f"semcast_web_{name}_count {values.count}"]
    return head(name, "histogram", about) + rows


def resident_bytes(pid: int | None) -> int:
    """Main memory of a process, 0 where the system does not tell."""
    try:
        return 4096 * int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
