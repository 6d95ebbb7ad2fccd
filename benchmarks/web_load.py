"""Many visitors of `semcast web` at once: does each get its turn, how long do they wait, and what memory does it take?

    python benchmarks/web_load.py --sessions 50 --kill 10 --cpus 0,1 --out benchmarks/results/web_load.json

Every visitor loads the page, listens to its events, uploads a photo of its own and sends it. The last `--kill` of them
break off all their connections as soon as their job waits or runs. Then we wait until the server has forgotten them.

A job's work ahead is what the jobs before it still computed after it was asked for. The bars: no job fails; everyone who
waits is told of a turn; the median wait is at most 1.2 times the median work ahead; server and worker together stay
below 4 GiB; the bytes of killed sessions are freed.

With --minutes the same crowd comes again, to the same server, until they are over; after each round everyone has been
forgotten, and the memory that the server then has must not grow from the second round on.
"""

import argparse
import io
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from semcast import __version__
from semcast.bench.cost import cpu_name
from semcast.files import write_text
from semcast.images import PHOTO
from semcast.web.limits import Limits

MEMORY_MAX, WAIT_MAX, GROWTH_MAX = 4 << 30, 1.2, 0.02
ENDED = ("done", "refused", "cancelled", "failed")
PATIENCE_S = 900.0


class Visitor(threading.Thread):
    """One session: page, events, upload, job."""

    def __init__(self, port: int, seed: int, side: int, leaves: bool):
        super().__init__(daemon=True)
        self.port, self.seed, self.side, self.leaves = port, seed, side, leaves
        self.job: dict[str, Any] = {}
        self.turns: list[int] = []  # how many were ahead, each time that was told
        self.error = ""
        self.headers: dict[str, str] = {}

    def run(self) -> None:
        try:
            self.visit()
        except Exception as error:  # it is a row of the result
            self.error = f"{type(error).__name__}: {error}"

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, self.headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status >= 400:
                raise RuntimeError(f"{answer.status} {data[:200].decode(errors='replace')}")
            if cookie := answer.getheader("set-cookie"):
                self.headers["Cookie"] = cookie.split(";")[0]
            return data
        finally:
            connection.close()

    def visit(self) -> None:
        self.ask("GET", "/")
        self.ask("POST", "/api/session")
        events = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        events.request("GET", "/api/events", headers=self.headers)
        stream = events.getresponse()
        name = json.loads(self.ask("POST", "/api/uploads", photo(self.seed)))["upload"]
        settings = {"picture": name, "side": self.side, "seed": self.seed}
        asked = json.dumps({"kind": "link", "settings": settings}).encode()
        self.job = json.loads(self.ask("POST", "/api/jobs", asked))
        while self.job["state"] not in ENDED:
            line = stream.readline()
            if not line:
                raise RuntimeError("the stream of events ended")
            if line.startswith(b"data: "):
                self.job = json.loads(line[6:])
                if self.job["state"] == "waiting":
                    self.turns.append(self.job["ahead"])
                if self.leaves:
                    break
        if not self.leaves:
            found = next(r for r in self.job["results"] if r["name"] == "received")
            Image.open(io.BytesIO(self.ask("GET", found["url"]))).verify()
            while stream.fp and not self.is_over.wait(0.5):  # the page stays open
                pass
        events.close()

    def look_back(self) -> None:
        """How the job of one who left went on, if the server still knows."""
        if self.leaves and self.job:
            try:
                self.job = json.loads(self.ask("GET", f"/api/jobs/{self.job['job']}"))
            except RuntimeError:  # a minute after leaving, a session is forgotten
                self.job["state"] = "forgotten"

    is_over = threading.Event()


def photo(seed: int) -> bytes:
    """The bundled photo, shifted, so that no two visitors send the same."""
    pixels = np.roll(np.asarray(Image.open(PHOTO).convert("RGB")), 7 * seed, axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def metrics(port: int) -> dict[str, float]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {name: float(value) for name, value in re.findall(r"^semcast_web_(\w+) (\S+)$", text, re.M)}


def start(model: str, cpus: str | None) -> tuple[subprocess.Popen, int]:
    """A server of its own, and its port."""
    command = [sys.executable, "-m", "semcast", "web", "--port", "0", "--model", model]
    if cpus:
        command = ["taskset", "-c", cpus, *command]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    line = process.stderr.readline()
    found = re.search(r":(\d+)/", line)
    if not found:
        raise SystemExit(f"web_load: the server does not start: {line.strip()}")
    port = int(found[1])
    while metrics(port)["ready"] < 1:
        time.sleep(0.2)
    return process, port


def measured(args) -> dict[str, Any]:
    """Rows of all visitors of the first round, and figures of the server."""
    process, port = start(args.model, args.cpus)
    try:
        began, found, rounds = time.monotonic(), {}, []
        while not rounds or time.monotonic() - began < 60 * args.minutes:
            one = crowd(args, port)
            found = found or one
            now, stay = metrics(port), [r for r in one["rows"] if not r["left"]]
            rounds.append(
                {
                    "seconds": round(time.monotonic() - began),
                    "failed": sum(r["state"] != "done" or bool(r["error"]) for r in stay),
                    "peak_memory_mib": round(one["peak"]["memory"] / 2**20),
                    "memory_after_mib": round((now["resident_bytes"] + now["worker_resident_bytes"]) / 2**20, 1),
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
        return found | {"rounds": rounds}
    finally:
        process.terminate()
        process.wait()


def crowd(args, port: int) -> dict[str, Any]:
    """All visitors at once, until the server has forgotten them."""
    Visitor.is_over.clear()
    everyone = range(args.sessions)
    visitors = [Visitor(port, i, args.side, i >= args.sessions - args.kill) for i in everyone]
    for visitor in visitors:
        visitor.start()
    stay, peak = [v for v in visitors if not v.leaves], {"memory": 0.0, "sessions": 0.0, "queue": 0.0}
    while any(v.is_alive() and v.job.get("state") not in ENDED for v in stay):
        now = metrics(port)
        memory = now["resident_bytes"] + now["worker_resident_bytes"]
        for name, value in (("memory", memory), ("sessions", now["sessions"]), ("queue", now["queue_jobs"])):
            peak[name] = max(peak[name], value)
        time.sleep(0.2)
    for visitor in visitors:
        visitor.look_back()
    full = metrics(port)["session_bytes"]
    Visitor.is_over.set()
    end_s = time.monotonic() + Limits().gone_s + 30
    while (after := metrics(port))["sessions"] > 0 and time.monotonic() < end_s:
        time.sleep(1)
    rows = [row(visitor) for visitor in visitors]
    return {"peak": peak, "session_bytes": [full, after["session_bytes"]], "rows": with_work_ahead(rows)}


def row(visitor: Visitor) -> dict[str, Any]:
    times = {name: visitor.job.get(name) for name in ("number", "state", "added_s", "started_s", "ended_s")}
    return {"session": visitor.seed, "left": visitor.leaves, "turns": visitor.turns, "error": visitor.error} | times


def with_work_ahead(rows: list[dict]) -> list[dict]:
    """Add to each row whose job ran how long it waited, and how much work was ahead of it."""
    ran = [r for r in rows if r["started_s"]]
    for r in ran:
        before = [o for o in ran if o["number"] < r["number"]]
        r["wait_s"] = round(r["started_s"] - r["added_s"], 3)
        r["ahead_s"] = round(sum(max(0.0, o["ended_s"] - max(o["started_s"], r["added_s"])) for o in before), 3)
    return rows


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """The bars and what was measured for each."""
    stay = [r for r in found["rows"] if not r["left"]]
    done = [r for r in stay if r["state"] == "done"]
    wait_s, ahead_s = (median([r[name] for r in done] or [0.0]) for name in ("wait_s", "ahead_s"))
    figures = {
        "sessions": len(found["rows"]),
        "failed": sum(r["state"] != "done" or bool(r["error"]) for r in stay),
        "told_no_turn": sum(not r["turns"] and r["wait_s"] > 1 for r in done),
        "median_wait_s": round(wait_s, 2),
        "median_ahead_s": round(ahead_s, 2),
        "peak_memory_mib": round(found["peak"]["memory"] / 2**20),
        "bytes_after": found["session_bytes"][1],
    }
    if len(found["rounds"]) > 2:
        memory = [one["memory_after_mib"] for one in found["rounds"][1:]]
        figures |= {"rounds": len(found["rounds"]), "growth": round(memory[-1] / memory[0] - 1, 4)}
        figures["failed"] += sum(one["failed"] for one in found["rounds"][1:])
    met = not (figures["failed"] or figures["told_no_turn"] or figures["bytes_after"])
    met = met and wait_s <= WAIT_MAX * ahead_s + 0.5 and found["peak"]["memory"] <= MEMORY_MAX
    met = met and figures.get("growth", 0) <= GROWTH_MAX
    return figures | {"met": met}


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--sessions", type=int, default=50)
    p.add_argument("--kill", type=int, default=10, help="so many of them break off")
    p.add_argument("--side", type=int, default=512)
    p.add_argument("--model", default="small")
    p.add_argument("--cpus", help="processors for the server, as `taskset -c` takes them: 0,1")
    p.add_argument("--minutes", type=float, default=0.0, help="come again and again for so long, default: one round")
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    found = measured(args)
    command = f"python benchmarks/web_load.py --sessions {args.sessions} --kill {args.kill} --side {args.side} --minutes {args.minutes:g}"
    about = {"schema": 1, "experiment": "web_load", "command": command, "semcast": __version__}
    machine = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "server_cpus": args.cpus,
        "python": platform.python_version(),
    }
    record = about | {"machine": machine, "summary": summary(found)} | found
    if args.out:
        write_text(args.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["summary"]))


if __name__ == "__main__":
    main()
