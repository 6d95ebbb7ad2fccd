"""The Watterson model of a short-wave path: two echoes of equal mean power that fade independently.

Each echo has a complex Gaussian gain, so a Rayleigh envelope, whose power spectrum is a Gaussian bell around 0 Hz. The
Doppler spread of ITU-R F.1487 is 2 sigma of that bell, so the gain has the autocorrelation exp(-2 (pi sigma tau)^2).

Sources: Watterson, Juroshek & Bensema 1970, "Experimental confirmation of an HF channel model"; ITU-R F.1487 (2000).
"""

import functools
import math

import numpy as np
from numpy.random import Generator

from .filters import BLOCK, analytic

DENSITY = 12  # white numbers in 1 / sigma seconds; they are 6 sigma wide, where the bell is -78 dB
REACH = 8  # white numbers on each side that a gain depends on; the next one has a weight of 1e-8
KNOTS = 40  # gains computed for each white number, with straight lines between: wrong by less than -85 dB


def watterson(
    samples: np.ndarray, rate_hz: float, delay_ms: float, doppler_hz: float, generator: Generator
) -> np.ndarray:
    """Send samples [N] over two fading paths -> float32 [N + delay]. The mean power gain over realisations is 1.

    Args:
        delay_ms: of the second path after the first.
        doppler_hz: spread of either path's spectrum, 2 sigma.
    """
    delay_s = delay_ms / 1e3
    count = len(samples) + math.ceil(round(delay_s * rate_hz, 6))
    white = [draw_white(count, rate_hz, doppler_hz, generator) for _ in range(2)]
    out = np.empty(count, np.float32)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        first, second = (gain(w, start, stop, rate_hz, doppler_hz) for w in white)
        direct = analytic(samples, rate_hz, start, stop)
        echo = analytic(samples, rate_hz, start, stop, delay_s)
        out[start:stop] = np.real(first * direct + second * echo) * math.sqrt(0.5)
    return out


def draw_white(count: int, rate_hz: float, doppler_hz: float, generator: Generator) -> np.ndarray:
    """The white numbers CN(0, 1) behind the gain at `count` samples. It is in its steady state from the first one on."""
    needed = math.ceil(count / rate_hz * DENSITY * doppler_hz / 2) + 2 * REACH + 2
    parts = generator.standard_normal((needed, 2)) * math.sqrt(0.5)
    return parts.view(np.complex128)[:, 0]


def gain(white: np.ndarray, start: int, stop: int, rate_hz: float, doppler_hz: float) -> np.ndarray:
    """A path's gain, complex128 [stop - start], E|gain|^2 = 1: the white numbers, smoothed by a Gaussian response."""
    place = np.arange(start, stop) / rate_hz * DENSITY * doppler_hz / 2  # in steps from one white number to the next
    low, high = int(place[0]), int(place[-1]) + 2
    windows = np.lib.stride_tricks.sliding_window_view(white[low : high + 2 * REACH + 1], 2 * REACH + 1)
    knots = (windows @ _weights().T).reshape(-1)
    return np.interp((place - low) * KNOTS, np.arange(len(knots)), knots)


@functools.cache
def _weights() -> np.ndarray:
    """[KNOTS, 2 REACH + 1]: how much each white number counts, at each place between two of them; squares add to 1.

    The response exp(-(2 pi sigma t)^2) is the one whose spectrum, squared, is the bell exp(-f^2 / (2 sigma^2)).
    """
    t = (np.arange(KNOTS)[:, None] / KNOTS + REACH - np.arange(2 * REACH + 1)) / DENSITY  # in 1 / sigma seconds
    weights = np.exp(-((2 * math.pi * t) ** 2))
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)
