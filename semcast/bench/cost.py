"""What a system's work costs in seconds, whether or not a result was remembered from earlier.

The bench asks for the same encodings again and again and remembers them, but a user of the codec pays for each one.
A remembered result is therefore charged again at the price of its first computation.
"""

import functools
import platform
import time
from collections.abc import Callable
from pathlib import Path

_charged_s = 0.0  # charged so far for remembered results


def spent_s(device: str = "cpu") -> float:
    """This process's work so far, with what was charged for remembered results.

    On the CPU this is processor time, including the programs it ran; on a GPU it is wall-clock time.
    """
    return _charged_s + (processor_s() if device == "cpu" else time.perf_counter())


def processor_s() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def remembered(maxsize: int) -> Callable:
    """`functools.lru_cache` for functions of hashable positional arguments. Remembered results count in `spent_s`."""

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
    """The processor's model name, None if it is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or None
