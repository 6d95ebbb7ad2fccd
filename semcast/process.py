"""What the command line sets up in its process before it works: waiting threads, closed streams, odd names, notices."""

import io
import logging
import os
import sys

# Threads of OpenMP that wait for work spin by default. Beside another busy program each then takes the core from those
# that have work, and everything becomes many times slower. Set before torch is imported; a user's own values stay.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


def prepare(quiet: bool = False) -> None:
    """Call it once, first thing. quiet: no notices on stderr, only errors."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
    open_streams()
    log = logging.getLogger("semcast")
    log.handlers[:] = [Notices()]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.WARNING)


class Notices(logging.Handler):
    """Notices as lines on stderr, which is looked up each time: a progress bar or a test may have changed it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"semcast: {record.getMessage()}", file=sys.stderr)


def open_streams() -> None:
    """Give a closed stdin, stdout or stderr to /dev/null, and let names that are not UTF-8 be printed with escapes."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would get its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
