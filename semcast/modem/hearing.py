"""One transmission, once it is known where it begins: its symbols as they come, with what was learnt about them."""

import math
from typing import NamedTuple

import numpy as np

from . import code
from .baseband import BASE_HZ, baseband
from .demodulate import Tuning, demodulate, known_symbols, observe, tune
from .detect import Burst
from .estimate import Estimate, estimate
from .layout import Layout
from .profiles import BOOST_DB, HEADER_BYTES, PREFIX, RATE_HZ, REPEATS, USEFUL
from .transmit import HEADER_GAIN, HEADER_NOISE_DB

MARGIN = 800  # samples at 4 kHz before and after a transmission that are looked at
_BOOST = 10 ** (BOOST_DB / 20)  # of the known symbols, from which the channel is estimated


class Heard(NamedTuple):
    """Symbols of header or payload in the order of the air."""

    y: np.ndarray  # [S, C] complex
    h: np.ndarray  # [S, C] complex, for symbols of unit power
    error_var: np.ndarray  # [S, C], of h
    noise_var: np.ndarray  # [S, C], infinite where the recording has no such symbol
    estimate: Estimate
    tuning: Tuning
    offset_hz: float
    clock_ppm: float

    def rows(self, rows: slice) -> "Heard":
        y, h, error_var, noise_var = (part[rows] for part in (self.y, self.h, self.error_var, self.noise_var))
        return self._replace(y=y, h=h, error_var=error_var, noise_var=noise_var)

    def sent_with(self, gain: float, distortion_db: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """y, h and noise_var [S, C] of symbols that the transmitter sends with this gain and signal over distortion."""
        h = gain * self.h
        unknown = gain**2 * self.error_var + np.abs(h) ** 2 * 10 ** (-distortion_db / 10)
        return self.y, h, self.noise_var + unknown


def hear(
    samples: np.ndarray, layout: Layout, burst: Burst, which: np.ndarray | None = None, rows: slice | None = None
) -> Heard:
    """Demodulate a transmission and estimate its channel.

    Args:
        samples: the recording at 8 kHz.
        burst: its preamble or its postamble.
        which: the known symbols to go by, as `known_symbols` numbers them; default all.
        rows: which symbols of header and payload; default all.
    """
    ticks = layout.postamble_at if burst.kind == "post" else 0
    at, offset_hz = burst.at - ticks / 2, burst.offset_hz
    which = np.arange(2 * REPEATS + layout.pilots) if which is None else which
    symbols_at = layout.data_at[rows or slice(None)] + PREFIX
    needed = np.concatenate([symbols_at, known_symbols(layout)[0][which]])
    total = len(samples) // 2
    first = max(math.floor(at + needed.min() / 2), 0) - MARGIN
    last = min(math.ceil(at + needed.max() / 2), total) + MARGIN
    z = baseband(samples, first, last).astype(complex)
    z *= np.exp(-2j * np.pi * offset_hz / BASE_HZ * np.arange(z.size))
    tuning, more_hz, clock_ppm = tune(Tuning(z, first, total, at), layout, which, ticks / RATE_HZ)
    seconds, gains = observe(tuning, layout, which)
    y, there = demodulate(tuning, layout.profile, symbols_at)
    e = estimate(layout.profile, seconds, gains, (symbols_at + USEFUL / 2) / RATE_HZ)
    noise_var = np.where(there[:, None], e.noise_var, math.inf)
    return Heard(
        np.where(there[:, None], y, 0),
        e.h / _BOOST,
        e.error_var / _BOOST**2,
        noise_var,
        e,
        tuning,
        offset_hz + more_hz,
        clock_ppm,
    )


def front_of(samples: np.ndarray, layout: Layout, burst: Burst) -> Heard:
    """The first part of the header, by the preamble and the first pilot: all transmissions begin like the shortest."""
    return hear(samples, layout, burst, np.arange(REPEATS + 1), layout.header_parts[0])


def end_of(samples: np.ndarray, layout: Layout, burst: Burst) -> Heard:
    """The second part of the header, by the last pilot and the postamble."""
    which = np.arange(REPEATS + layout.pilots - 1, 2 * REPEATS + layout.pilots)
    return hear(samples, layout, burst, which, layout.header_parts[1])


def header_bits(heard: Heard, part: int) -> np.ndarray:
    """Soft bits of one part of the header, for `code.decode`."""
    y, h, noise_var = (values.ravel() for values in heard.sent_with(HEADER_GAIN, HEADER_NOISE_DB))
    return code.soft_bits(HEADER_BYTES, part, y, h, noise_var)
