"""The queue: jobs of all sessions, one after the other in the order they were asked for, in one worker.

A job waits, runs, and ends as done, refused (a mistake of the visitor), cancelled, or failed (a mistake of ours). Whoever
waits knows how many are ahead and about how long they take. A job that takes too long, or does not react to being
cancelled, is ended together with the worker, which starts again.
"""

import asyncio
import secrets
from collections import deque
from time import monotonic

from .limits import Limits
from .metrics import Metrics
from .report import Task
from .session import CANCELLED, DONE, FAILED, REFUSED, RUNNING, Blob, Job, Session
from .sessions import Full, Sessions
from .worker import Worker

POLL_S = 0.2
GUESS_S = 2.0  # how long a job takes, while none of its kind has run yet
LEARN = 0.3  # weight of the last job in the mean of its kind
CRASHED = "the program that reads this file ended; choose another file"
SORRY = "something went wrong here; the operator finds it in the server's log"


class Jobs:
    """The queue and its worker."""

    def __init__(self, worker: Worker, limits: Limits, metrics: Metrics):
        self.worker, self.limits, self.metrics = worker, limits, metrics
        self.waiting: deque[Job] = deque()
        self.running: Job | None = None
        self.usual_s: dict[str, float] = {}
        self.sessions: Sessions | None = None
        self.ready, self.broken, self.count = False, "", 0
        self.arrival = asyncio.Event()

    def add(self, job: Job) -> None:
        """Let a job wait for its turn. Raises Full."""
        if len(self.waiting) >= self.limits.queue:
            raise Full("the queue is full; try again in a minute")
        if sum(not other.ended for other in job.session.jobs.values()) >= self.limits.session_jobs:
            raise Full(f"{self.limits.session_jobs} jobs of yours are on their way; wait for one, or cancel it")
        self.count += 1
        job.number = self.count
        job.session.jobs[job.name] = job
        self.waiting.append(job)
        self.count_up()
        self.arrival.set()

    def cancel(self, job: Job) -> None:
        """A waiting job is taken out of the queue, the running one asked to stop."""
        job.unwanted = True
        if job in self.waiting:
            self.waiting.remove(job)
            self.end(job, CANCELLED)
            self.count_up()
        elif job is self.running:
            self.worker.cancel(job.number)

    def leave(self, session: Session) -> None:
        """Cancel all jobs of a session that ends."""
        for job in list(session.jobs.values()):
            if not job.ended:
                self.cancel(job)

    def count_up(self) -> None:
        """Tell everyone who waits how much is ahead."""
        wait_s, ahead = 0.0, 0
        if job := self.running:
            wait_s, ahead = max(self.guess_s(job) - (monotonic() - job.started_s), 0.1), 1
        for job in self.waiting:
            job.ahead, job.wait_s = ahead, wait_s
            wait_s, ahead = wait_s + self.guess_s(job), ahead + 1
            job.changed()

    def guess_s(self, job: Job) -> float:
        """How long a job will take: the mean of its kind, in proportion to the picture's pixels."""
        return self.usual_s.get(job.kind, GUESS_S) * job.weight

    def end(self, job: Job, state: str, error: str = "") -> None:
        job.state, job.error, job.ended_s, job.upload = state, error, monotonic(), None
        self.metrics.jobs[job.kind, state] += 1
        job.changed()

    async def run(self) -> None:
        """Carry out jobs for ever."""
        try:
            while True:
                if not (self.ready and self.worker.alive):
                    await self.start()
                while not self.waiting:
                    self.arrival.clear()
                    await self.arrival.wait()
                if self.ready and not self.worker.alive:  # it ended while it had nothing to do
                    await self.restart()
                    continue
                job = self.running = self.waiting.popleft()
                job.state, job.started_s, job.ahead, job.wait_s = RUNNING, monotonic(), 0, 0.0
                self.metrics.waits.add(job.started_s - job.added_s)
                self.count_up()
                job.changed()
                state, error = await self.carry_out(job)
                self.running = None
                self.end(job, state, error)
                took_s = job.ended_s - job.started_s
                self.metrics.runs.add(took_s)
                if state == DONE:
                    before_s = self.usual_s.get(job.kind, took_s / job.weight)
                    self.usual_s[job.kind] = before_s + LEARN * (took_s / job.weight - before_s)
        finally:
            self.worker.stop()

    async def start(self) -> None:
        """Start the worker and wait until its networks are loaded."""
        await asyncio.to_thread(self.worker.start)
        message = None
        while message is None:
            try:
                message = await asyncio.to_thread(self.worker.message, POLL_S)
            except (EOFError, OSError):
                message = ("broken", SORRY)
        self.ready = message[0] == "ready"
        self.broken = "" if self.ready else message[1]
        if self.broken:
            await asyncio.to_thread(self.worker.stop)
            await asyncio.sleep(1)

    async def restart(self) -> None:
        self.ready = False
        self.metrics.restarts += 1
        await asyncio.to_thread(self.worker.stop)

    async def carry_out(self, job: Job) -> tuple[str, str]:
        """Have a job done by the worker: its last state, and what to tell of an error."""
        if self.broken:
            return FAILED, self.broken
        cancelled_s, heard = None, False
        try:
            await asyncio.to_thread(self.worker.submit, Task(job.number, job.kind, job.settings, job.upload))
            while True:
                message = await asyncio.to_thread(self.worker.message, POLL_S)
                now, heard = monotonic(), heard or message is not None
                if job.unwanted:
                    self.worker.cancel(job.number)
                    cancelled_s = cancelled_s or now
                if message and (ended := self.take(job, *message)):
                    return ended
                if now - job.started_s > self.limits.job_s:
                    await self.restart()
                    return REFUSED, f"this took longer than {self.limits.job_s:g} s and was stopped; ask for less"
                if cancelled_s and now - cancelled_s > self.limits.grace_s:
                    await self.restart()
                    return CANCELLED, ""
        except (EOFError, OSError):  # the worker is gone: it crashed, or the system took its memory
            await self.restart()
            if job.unwanted:
                return CANCELLED, ""
            if heard or job.retried:
                return REFUSED, CRASHED
            job.retried = True  # it was gone before it had begun
            await self.start()
            return await self.carry_out(job)

    def take(self, job: Job, kind: str, *values) -> tuple[str, str] | None:
        """Take a message about a job; returns how it ended, if so."""
        if kind in (DONE, CANCELLED):
            return (CANCELLED if job.unwanted else kind), ""
        if kind == REFUSED:
            return REFUSED, values[0]
        if kind == FAILED:
            return FAILED, SORRY
        if job.session.ended or job.unwanted:
            return None
        if kind == "progress":
            job.share, job.words = values
        elif kind == "figures":
            job.figures = job.figures | values[0]
        elif kind == "keep" and job.upload_name in job.session.uploads:
            job.session.uploads[job.upload_name] = values[0]
        elif kind == "result":
            self.keep_result(job, *values)
        job.changed()
        return None

    def keep_result(self, job: Job, name: str, data: bytes, media_type: str, filename: str, about: dict) -> None:
        assert self.sessions is not None
        try:
            self.sessions.make_room(job.session, len(data))
        except Full as full:
            job.error = str(full)
            return
        key = secrets.token_urlsafe(12)
        job.blobs[key] = Blob(data, media_type, filename)
        job.results.append({"name": name, "url": f"/api/results/{key}", "type": media_type, "file": filename} | about)
