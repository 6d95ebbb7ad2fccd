"""What a system of the bench is: a sender and a receiver, which run in separate processes (`ends.py`).

    send(pixels, uses, snr_db) -> (x, side)     pixels uint8 [H, W, 3]; x [1, k] complex, k <= uses, mean |x|^2 = 1
    receive(received, side) -> pixels           `Received` of [1, k] arrays; None if lost: the mean colour is shown

side = {name: [value, bits]} holds whole numbers 0 <= value < 2^bits. It is error-free, and the harness counts it. The
fields red, green and blue hold the mean colour. Senders know the average SNR, but neither the noise nor which draw it
is; those of a system that is `told` something get that too, by its name. For an ideal link, x is a payload of bytes,
which is delivered whole or not at all; the harness checks its size against the theory.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..images import mean_colour as colour_of
from ..images import to_image

Side = dict[str, tuple[int, int]]
NOTHING = np.zeros((1, 0), np.complex64)  # the symbols of a picture that no scheme carries


class System(NamedTuple):
    about: str
    send: Callable
    receive: Callable
    link: str = "channel"  # or "capacity", "finite": ideal links for payloads, on AWGN
    digital: bool = False  # its constellation has unit power, but not every picture
    needs: tuple[str, ...] = ()  # packages beyond the plain installation
    version: Callable[[], str] = lambda: "1"  # changes when what it sends or receives changes
    ready: Callable[[], None] = lambda: None  # raises InputError if it cannot run
    own_uses: Callable[[int, int], int] | None = None  # (height, width) -> k: as published, whatever the others get
    told: str = ""  # what its sender gets by this name: "truth", the classes of the pixels, or "segmenter", its file


# Side information


def sides(pixels: np.ndarray) -> Side:
    return {"height": (pixels.shape[0], 16), "width": (pixels.shape[1], 16)}


def mean_colour(pixels: np.ndarray) -> Side:
    """The mean colour in 24 bits, which is shown in place of a lost picture."""
    values = eight_bit(colour_of(to_image(pixels)))
    return {name: (value, 8) for name, value in zip(("red", "green", "blue"), values)}


def eight_bit(colour: np.ndarray) -> list[int]:
    """A colour in [0, 1] as three whole numbers."""
    return np.rint(colour.ravel() * 255).astype(int).tolist()


def float16_bits(value: float) -> int:
    return int(np.float16(value).view(np.uint16))


def float16(bits: int) -> float:
    return float(np.uint16(bits).view(np.float16))
