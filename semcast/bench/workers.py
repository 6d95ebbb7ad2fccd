"""Where the work is done: in this process, in processes of this machine, or on a Ray cluster.

Units in; out come rows, each with the place of its unit in the plan and the seconds that it took, or None in place of
seconds if they include the warm-up of a system.
"""

import contextlib
import functools
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

import torch

from ..cascade.device import keep_freed_memory
from ..errors import InputError, brings
from .ends import Ends
from .unit import Measured, Unit, measure_unit

Timed = tuple[Measured, int, float | None]  # a row with its picture and features, its unit's place, seconds


def here(units: Iterator[Unit], device: str, ends: Ends | None) -> Generator[Timed, None, None]:
    threads = torch.get_num_threads()
    with contextlib.nullcontext(ends) if ends else Ends(device) as ends:
        try:
            torch.set_num_threads(1)
            for place, unit in enumerate(units):
                for measured, seconds in timed(unit, ends):
                    yield measured, place, seconds
        finally:
            torch.set_num_threads(threads)


def in_processes(
    units: Iterator[Unit], workers: int, executor: ProcessPoolExecutor | None = None
) -> Generator[Timed, None, None]:
    """Measure in processes, by default in a pool of their own.

    Units are read when they are handed out, so that few pictures are in memory at a time.
    """
    numbered, places = enumerate(units), {}  # places of the units that are not done
    with contextlib.nullcontext(executor) if executor else pool(workers) as executor:
        try:
            while True:
                while len(places) < 2 * workers and (item := next(numbered, None)) is not None:
                    places[executor.submit(in_worker, item[1])] = item[0]
                if not places:
                    return
                for future in wait(places, return_when=FIRST_COMPLETED).done:
                    place = places.pop(future)
                    for measured, seconds in future.result():
                        yield measured, place, seconds
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, perhaps for want of memory; "
                "give the command again to go on, or fewer --workers"
            ) from None
        finally:
            for future in places:
                future.cancel()


@contextlib.contextmanager
def pool(workers: int) -> Generator[ProcessPoolExecutor, None, None]:
    """Processes that measure, for one run or several: what they have loaded they need not load again."""
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this worker when the harness is killed. It holds both ends of the pool's queue and would wait for ever."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            connection.wait([parent.sentinel])
        os._exit(1)  # its sender and receiver then see the end of their input

    threading.Thread(target=watch, daemon=True).start()


def on_ray(units: Iterator[Unit], address: str) -> Generator[Timed, None, None]:
    """Measure on a cluster, each of whose machines needs semcast, and the LPIPS folder at the same path."""
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise InputError(f"--ray needs Ray ({error}): {brings('ray')}") from None
    try:
        if ":" in address and "://" not in address:  # Ray itself would keep trying for minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError ...
        raise InputError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None
    try:
        work, numbered, places = ray.remote(num_cpus=1)(in_worker), enumerate(units), {}
        while True:
            while len(places) < 2 * cluster_cores() and (item := next(numbered, None)) is not None:
                places[work.remote(item[1])] = item[0]
            if not places:
                return
            (finished, *_), _ = ray.wait(list(places))
            place = places.pop(finished)
            for measured, seconds in ray.get(finished):
                yield measured, place, seconds
    except RayError as error:
        if isinstance(error, RayTaskError) and isinstance(error.cause, InputError):
            raise error.cause from None
        raise InputError(
            f"the Ray cluster gave up ({str(error).strip().splitlines()[-1]}); give the command again to go on"
        ) from None
    finally:
        ray.shutdown()


def cluster_cores() -> int:
    """The number of cores of the Ray cluster that this process has joined."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def in_worker(unit: Unit) -> list[tuple[Measured, float | None]]:
    torch.set_num_threads(1)
    keep_freed_memory()
    return list(timed(unit, _own_ends(unit.setting.device)))


def timed(unit: Unit, ends: Ends) -> Iterator[tuple[Measured, float | None]]:
    """The rows of a unit, each with the seconds since the one before."""
    start, warm = time.monotonic(), len(ends.warm)
    for measured in measure_unit(unit, ends):
        yield measured, time.monotonic() - start if len(ends.warm) == warm else None
        start, warm = time.monotonic(), len(ends.warm)


@functools.cache
def _own_ends(device: str) -> Ends:
    return Ends(device)  # kept as long as this worker lives


def default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
