"""The process that computes. It decodes what strangers uploaded, so it may crash, be killed and be started again."""

import gc
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from ..errors import InputError, Lost
from .limits import Limits
from .report import Cancelled, Report, Task

NOTHING = 0  # number of no job
TOO_LARGE = "this takes more memory than the server lends to one job; choose a smaller picture or fewer rungs"


class Worker:
    """The process, seen from the server. Its methods block; call them in a thread."""

    def __init__(self, model: str, limits: Limits):
        self.model, self.limits = model, limits
        self.context = multiprocessing.get_context("spawn")
        self.unwanted: Any = self.context.Value("q", NOTHING, lock=False)
        self.process: Any = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def start(self) -> None:
        """Start the process; its first message tells whether the networks are loaded."""
        self.stop()
        self.pipe, theirs = self.context.Pipe()
        self.unwanted.value = NOTHING
        self.process = self.context.Process(
            target=serve, args=(theirs, self.unwanted, self.model, self.limits), daemon=True, name="semcast-web-worker"
        )
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        """End the process now, whatever it does."""
        if self.process:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None

    def submit(self, task: Task) -> None:
        self.pipe.send(task)

    def message(self, timeout_s: float) -> tuple | None:
        """The next message, None if there is none in time. Raises EOFError or OSError if the process has ended."""
        return self.pipe.recv() if self.pipe.poll(timeout_s) else None

    def cancel(self, number: int) -> None:
        self.unwanted.value = number


def serve(pipe: Connection, unwanted, model: str, limits: Limits) -> None:
    """The worker's main loop: one job after the other until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends it
    from ..process import prepare

    prepare(quiet=True)
    from ..cascade.engine import load_model
    from . import work
    from .overlays import overlays_of

    try:
        engine = load_model(model)
        engine.load()
        work.OVERLAYS.update(overlays_of(model, engine))
        limit_memory(limits.worker_bytes)
    except InputError as error:
        return pipe.send(("broken", str(error)))
    pipe.send(("ready",))
    while True:
        try:
            task: Task = pipe.recv()
        except (EOFError, OSError):
            return
        report = Report(pipe.send, partial(is_unwanted, unwanted, task))
        pipe.send(carry_out(task, partial(work.JOBS[task.kind], engine, limits, task, report)))
        gc.collect()


def is_unwanted(unwanted, task: Task) -> bool:
    return unwanted.value == task.number


def carry_out(task: Task, job: Callable[[], None]) -> tuple:
    """Run a job; how it ended is the last message about it."""
    try:
        job()
        return ("done",)
    except Cancelled:
        return ("cancelled",)
    except (InputError, Lost) as error:
        return ("refused", " ".join(str(error).split())[:300])
    except MemoryError:
        return ("refused", TOO_LARGE)
    except Exception as error:  # a bug, or memory that a library could not get
        if "bad_alloc" in str(error) or "allocate" in str(error):
            return ("refused", TOO_LARGE)
        print(f"semcast web: a {task.kind} job failed", file=sys.stderr)
        traceback.print_exc()
        return ("failed",)


def limit_memory(size_bytes: int) -> None:
    """Let the system refuse more memory than this, as MemoryError, where it can (Linux), and no GPU is in use."""
    try:
        import resource
    except ImportError:  # Windows
        return
    if "torch" not in sys.modules:
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))
