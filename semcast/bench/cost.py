"""What a system's work costs, in seconds, whether or not a result was remembered from earlier.

The bench asks for the same encodings again and again, so it remembers them; whoever uses a codec pays for each. A remembered
result is therefore charged again at the price of its first computation.
"""

import functools
import platform
import time
from collections.abc import Callable
from pathlib import Path

_charged_s = 0.0  # for results that were remembered


def spent_s(device: str = "cpu") -> float:
    """A clock of this process's work: processor time, programs it ran included; on a GPU the time of day. Plus what was charged."""
    return _charged_s + (processor_s() if device == "cpu" else time.perf_counter())


def processor_s() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def remembered(maxsize: int) -> Callable:
    """`functools.lru_cache` for functions of hashable positional arguments, on this clock."""

    def wrap(function):
        @functools.lru_cache(maxsize)
        def priced(*arguments):
            start = spent_s()
            return function(*arguments), spent_s() - start

        @functools.wraps(function)
        def charged(*arguments):
            global _charged_s
            misses = priced.cache_info().misses
            result, seconds = priced(*arguments)
            if priced.cache_info().misses == misses:
                _charged_s += seconds
            return result

        return charged

    return wrap


def cpu_name() -> str | None:
    """Of this machine, as its maker calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or None
