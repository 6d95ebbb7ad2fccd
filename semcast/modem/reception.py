"""What the receiver hands out: the payload in the order of x, and a report."""

import math
from typing import NamedTuple

import numpy as np

from ..channels.base import Received
from .baseband import BASE_HZ
from .estimate import DELAYS
from .hearing import Heard
from .layout import Layout, block_ends, places
from .profiles import SPACING_HZ
from .transmit import PAYLOAD_GAIN, SELF_NOISE_DB

REFERENCE_HZ = 3000  # in which noise is counted for snr3k_db
SIGNIFICANT = 5.0  # standard deviations


class Report(NamedTuple):
    """What the receiver measured on the way."""

    snr_db: float  # Es/N0 of the payload, averaged over fading, without the transmitter's distortion
    snr3k_db: float  # power of the payload over noise in 3 kHz
    offset_hz: float
    clock_ppm: float  # how much faster than the transmitter's the receiver's clock runs
    delay_spread_ms: float  # twice the rms: two equal paths 2 ms apart have 2 ms
    doppler_spread_hz: float  # 2 sigma
    level_dbfs: float  # mean power while the transmission lasts, noise included
    header_from: str  # "front", "end", "both", "caller", or "" if no header could be read


class Reception(NamedTuple):
    """One transmission that was found. Symbols have the order of x; without a header there are none."""

    header: bytes | None
    profile: str
    start: int  # sample of the recording where the transmission begins; negative if that was before
    y: np.ndarray  # [k] complex64
    h: np.ndarray  # [k] complex64, for x of unit power; mean |h|^2 = 1 where symbols were heard
    noise_var: np.ndarray  # [k] float32; where a symbol was not heard it is infinite, and y and h are 0
    report: Report

    @property
    def received(self) -> Received:
        """As channels return it, [1, k]."""
        return Received(self.y[None], self.h[None], self.noise_var[None])


def payload(heard: Heard, layout: Layout, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, h and noise_var [count] of the payload, from all symbols of a transmission, with mean |h|^2 = 1."""
    part = layout.profile.header_symbols
    y, h, noise_var = heard.rows(slice(part, layout.data - part)).sent_with(PAYLOAD_GAIN, SELF_NOISE_DB)
    ends = block_ends(layout)
    for first, last in zip(ends[:-1], ends[1:]):
        block = slice(first, last)
        for axis in (0, 1):
            noise_var[block] += surplus(y[block], h[block], noise_var[block], axis)
    heard_power = np.abs(h[np.isfinite(noise_var)]) ** 2
    level = np.sqrt(heard_power.mean()) if heard_power.size else 1.0
    y, h, noise_var = y / level, h / level, noise_var / level**2
    return in_order(places(layout, count).ravel(), count, y.ravel(), h.ravel(), noise_var.ravel())


def surplus(y: np.ndarray, h: np.ndarray, noise_var: np.ndarray, axis: int) -> np.ndarray:
    """Noise that the known symbols did not show, such as a crash of static or a tone that comes and goes.

    It is the power along an axis of [S, C] beyond what h and noise_var explain, or beyond the median if that is more,
    where it is significant.
    """
    there = np.isfinite(noise_var)
    expected = np.where(there, np.abs(h) ** 2 + noise_var, 0)
    total = np.maximum(expected.sum(axis=axis, keepdims=True), 1e-30)
    ratio = np.sum(np.abs(y) ** 2, axis=axis, keepdims=True) / total
    heard = there.any(axis=axis, keepdims=True)
    usual = max(1.0, float(np.median(ratio[heard]))) if heard.any() else 1.0
    deviation = np.sqrt(2 * np.sum(expected**2, axis=axis, keepdims=True)) / total
    more = (ratio - usual) * total / np.maximum(there.sum(axis=axis, keepdims=True), 1)
    return np.where(ratio > usual * (1 + SIGNIFICANT * deviation), more, 0)


def in_order(
    index: np.ndarray, count: int, y: np.ndarray, h: np.ndarray, noise_var: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the order of the air into that of x, where place i holds x[index[i]]; copies of a symbol are combined.

    The matched sum of conj(h) y / noise_var has the gain sum |h|^2 / noise_var, which is also its noise's variance. It
    is scaled so that a symbol sent once keeps the size of its h and its noise_var.
    """
    total = lambda values: np.bincount(index, values, count)
    weight = 1 / noise_var
    matched = weight * h.conj() * y
    power, share, copies = total(weight * np.abs(h) ** 2), total(weight), total((weight > 0) * 1.0)
    lost = power == 0
    scale = np.sqrt(np.where(lost, 1, power * share / np.maximum(copies, 1)))
    y = np.where(lost, 0, total(matched.real) + 1j * total(matched.imag)) / scale
    noise_var = np.where(lost, math.inf, power / scale**2)
    return y.astype(np.complex64), (power / scale).astype(np.complex64), noise_var.astype(np.float32)


def report(samples: np.ndarray, heard: Heard, span: range, header_from: str) -> Report:
    """What was measured of a transmission that takes up `span` of the recording."""
    e = heard.estimate
    snr = PAYLOAD_GAIN**2 * np.mean(np.abs(heard.h) ** 2) / np.median(e.noise_var)
    snr_db = 10 * math.log10(max(snr, 1e-6))
    mean = np.average(DELAYS, weights=e.delay_powers)
    rms = math.sqrt(np.average((DELAYS - mean) ** 2, weights=e.delay_powers))
    power = np.mean(np.square(samples[max(span.start, 0) : max(span.stop, 0)], dtype=float))
    return Report(
        snr_db=snr_db,
        snr3k_db=snr_db + 10 * math.log10(heard.h.shape[1] * SPACING_HZ / REFERENCE_HZ),
        offset_hz=float(heard.offset_hz),
        clock_ppm=float(heard.clock_ppm),
        delay_spread_ms=2e3 * rms / BASE_HZ,
        doppler_spread_hz=e.doppler_hz,
        level_dbfs=10 * math.log10(max(float(power), 1e-20)),
        header_from=header_from,
    )
