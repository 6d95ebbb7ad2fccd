"""Where the work is done: in this process, in processes of this machine, or on a Ray cluster. Units in, rows out."""

import contextlib
import functools
import multiprocessing
import os
import socket
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

import torch

from ..cascade.device import keep_freed_memory
from ..errors import InputError
from .ends import Ends
from .unit import Measured, Unit, measure_unit


def here(units: Iterator[Unit], device: str, ends: Ends | None) -> Generator[Measured, None, None]:
    threads = torch.get_num_threads()
    with contextlib.nullcontext(ends) if ends else Ends(device) as ends:
        try:
            torch.set_num_threads(1)
            for unit in units:
                yield from measure_unit(unit, ends)
        finally:
            torch.set_num_threads(threads)


def in_processes(units: Iterator[Unit], workers: int) -> Generator[Measured, None, None]:
    """Measure in processes. Units are read when they are handed out, so that few pictures are in memory at a time."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        pending = set()
        while True:
            while len(pending) < 2 * workers and (unit := next(units, None)) is not None:
                pending.add(pool.submit(in_worker, unit))
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield from future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; "
            "give the command again to go on, or fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this worker when the harness is killed. It holds both ends of the pool's queue and would wait for ever."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            connection.wait([parent.sentinel])
        os._exit(1)  # its sender and receiver then see the end of their input

    threading.Thread(target=watch, daemon=True).start()


def on_ray(units: Iterator[Unit], address: str) -> Generator[Measured, None, None]:
    """Measure on a cluster, each of whose machines needs semcast, and the LPIPS folder at the same path."""
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise InputError(f"--ray needs Ray ({error}): pip install 'semcast[ray]'") from None
    try:
        if ":" in address and "://" not in address:  # Ray itself would keep trying for minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError ...
        raise InputError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None
    try:
        work, pending = ray.remote(num_cpus=1)(in_worker), []
        limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while True:
            while len(pending) < limit and (unit := next(units, None)) is not None:
                pending.append(work.remote(unit))
            if not pending:
                return
            (finished, *_), pending = ray.wait(pending)
            yield from ray.get(finished)
    except RayError as error:
        if isinstance(error, RayTaskError) and isinstance(error.cause, InputError):
            raise error.cause from None
        raise InputError(
            f"the Ray cluster gave up ({str(error).strip().splitlines()[-1]}); give the command again to go on"
        ) from None
    finally:
        ray.shutdown()


def in_worker(unit: Unit) -> list[Measured]:
    torch.set_num_threads(1)
    keep_freed_memory()
    return list(measure_unit(unit, _own_ends(unit.setting.device)))


@functools.cache
def _own_ends(device: str) -> Ends:
    return Ends(device)  # kept as long as this worker lives


def default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
