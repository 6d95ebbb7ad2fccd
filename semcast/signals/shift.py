"""Signals moved in frequency: a receiver's wrong tuning, its drift, and complex baseband."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from .filters import analytic_blocks, positive_part


def shift(samples: np.ndarray, rate_hz: float, offset_hz: float, drift_hz_per_min: float = 0.0) -> np.ndarray:
    """Move a real signal [N] up by offset_hz at its first sample, and by drift_hz_per_min more a minute -> float32 [N].

    What is moved beyond 0 or half the rate comes back mirrored.
    """
    if not offset_hz and not drift_hz_per_min:
        return samples.astype(np.float32)
    out = np.empty(len(samples), np.float32)
    for start, a in analytic_blocks(samples, rate_hz):
        t = np.arange(start, start + len(a)) / rate_hz  # seconds
        out[start : start + len(a)] = np.real(a * np.exp(2j * math.pi * (offset_hz + drift_hz_per_min / 120 * t) * t))
    return out


def to_baseband(samples: np.ndarray, rate_hz: float, centre_hz: float) -> np.ndarray:
    """Complex baseband, complex64 [N], in which 0 Hz is `centre_hz` of the real signal."""
    blocks = (a for _, a in analytic_blocks(samples, rate_hz))
    return np.concatenate([np.zeros(0, np.complex64), *turned(blocks, -centre_hz / rate_hz)])


def from_baseband(baseband: np.ndarray, rate_hz: float, centre_hz: float) -> np.ndarray:
    """The real signal, float32 [N], of which `centre_hz` lies at 0 Hz in the baseband: what `to_baseband` had.

    As in a receiver for the upper sideband, what lies below `-centre_hz` in the baseband is filtered away.
    """
    return positive_part(np.concatenate([np.zeros(0, np.complex64), *turned([baseband], centre_hz / rate_hz)]), rate_hz)


def turned(blocks: Iterable[np.ndarray], turns: float) -> Iterator[np.ndarray]:
    """A complex signal in pieces, complex64, moved up by `turns` times its rate."""
    start = 0
    for block in blocks:
        angle = np.arange(start, start + len(block)) * turns % 1.0  # precise also after hours
        yield (block * np.exp(2j * math.pi * angle)).astype(np.complex64)
        start += len(block)
