"""Systems that break the rules of the bench, one each; the harness must notice. `test_bench.py` runs them."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np

from semcast.bench.base import System

KEPT = {}
CALLED = set()


def symbols(uses: int) -> np.ndarray:
    return np.exp(1j * np.arange(uses)[None]).astype(np.complex64)


def send(pixels, uses, snr_db):
    mean = pixels.reshape(-1, 3).mean(axis=0).round().astype(int).tolist()
    return symbols(uses), {
        "height": (pixels.shape[0], 16),
        "width": (pixels.shape[1], 16),
        **dict(zip(("red", "green", "blue"), zip(mean, (8, 8, 8)))),
    }


def receive(received, side):
    colour = [side[c][0] for c in ("red", "green", "blue")]
    return np.tile(np.uint8(colour), (side["height"][0], side["width"][0], 1))


def keep(pixels, uses, snr_db):
    KEPT["picture"] = pixels
    return send(pixels, uses, snr_db)


def kill_the_worker_once(pixels, uses, snr_db):
    """As a machine that fails: the first sender that gets here kills the process that asked it, and leaves a mark."""
    mark = os.environ.get("SEMCAST_TEST_MARK")
    if mark and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getppid(), signal.SIGKILL)
    return send(pixels, uses, snr_db)


def at_first_slow(work, *arguments):
    """Burn 0.3 s of processor time in the first call of a process."""
    if work not in CALLED:
        CALLED.add(work)
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
    return work(*arguments)


FLAT = System("honest: nothing but the mean colour", send, receive)
PEEK = System("keeps the picture in a variable", keep, lambda received, side: KEPT["picture"])
LOUD = System("too much power", lambda *a: (1.01 * symbols(a[1]), send(*a)[1]), receive)
GREEDY = System("one symbol more", lambda *a: (symbols(a[1] + 1), send(*a)[1]), receive)
LIAR = System(
    "the picture as side information of one bit",
    lambda *a: (symbols(a[1]), {"picture": (int.from_bytes(a[0].tobytes()[:99], "big"), 1)}),
    receive,
)
STUFFED = System(
    "the picture as side information", lambda *a: (symbols(a[1]), {f"s{i}": (i, 16) for i in range(100)}), receive
)
FAT = System("more bits than the capacity", lambda *a: (bytes(10000), send(*a)[1]), receive, link="capacity")
LOST = System("loses every picture", send, lambda received, side: None)
KILLER = System("kills its worker once", kill_the_worker_once, receive)
LOADING = System("loads something when it is first used", partial(at_first_slow, send), partial(at_first_slow, receive))
