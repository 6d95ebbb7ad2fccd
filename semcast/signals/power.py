"""How strong a signal is, and what it shares its band with: level, clipping, white noise, a tone."""

import math

import numpy as np
from numpy.random import Generator

from .filters import analytic_blocks

REFERENCE_HZ = 3000.0  # bandwidth in which noise is counted, as radio amateurs do
SILENCE_DB = 30.0  # below the peak a signal counts as silent
GAP_S = 0.02  # what is silent for a shorter time belongs to the signal


def active_power(samples: np.ndarray, rate_hz: float) -> float:
    """Mean square of samples [N] where there is a signal, so that silence around a burst does not count; 0 for silence.

    Meant for a signal without noise: noise less than 30 dB below the peak counts as signal.
    """
    size = np.abs(samples)
    peak = float(size.max(initial=0.0))
    loud = np.flatnonzero(size > peak * 10 ** (-SILENCE_DB / 20))
    if not len(loud):
        return 0.0
    gaps = np.diff(loud)
    active = 1 + np.where(gaps <= GAP_S * rate_hz, gaps, 1).sum()  # a longer gap parts two bursts
    return float(np.sum(np.square(samples, dtype=np.float64)) / active)


def noise_power(signal_power: float, snr3k_db: float, rate_hz: float) -> float:
    """Power of white noise between 0 and half the rate, of which `snr3k_db` less than the signal falls into 3 kHz."""
    return signal_power * 10 ** (-snr3k_db / 10) * (rate_hz / 2) / REFERENCE_HZ


def clip_envelope(samples: np.ndarray, rate_hz: float, clip_db: float) -> np.ndarray:
    """Limit the envelope, as an overdriven transmitter does: at most `clip_db` over its mean power while active.

    The phase stays. Nothing is filtered, so the spectrum grows wider.
    """
    limit = math.sqrt(2 * active_power(samples, rate_hz) * 10 ** (clip_db / 10))  # |envelope|^2 is twice the power
    out = np.empty(len(samples), np.float32)
    for start, a in analytic_blocks(samples, rate_hz):
        out[start : start + len(a)] = np.real(a) * np.minimum(1, limit / np.maximum(np.abs(a), 1e-30))
    return out


def tone(count: int, rate_hz: float, frequency_hz: float, power: float, generator: Generator) -> np.ndarray:
    """A steady tone, float32 [count], with a random phase."""
    angle = 2 * math.pi * (frequency_hz / rate_hz * np.arange(count) + generator.random())
    return (math.sqrt(2 * power) * np.cos(angle)).astype(np.float32)


def convert(samples: np.ndarray, bits: int) -> np.ndarray:
    """What a converter of so many bits makes of samples [N]: clipped at full scale, -1 .. 1, and rounded."""
    steps = 2.0 ** (bits - 1)
    return (np.clip(np.round(samples * steps), -steps, steps - 1) / steps).astype(np.float32)
