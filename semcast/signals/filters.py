"""Linear-phase filters on real samples: the analytic signal, band limits, resampling.

None of them delays: every filter looks as far ahead as back. Beyond its ends a signal is zero. Long signals are filtered
in blocks, so that memory stays near that of the samples themselves.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

HALF_S = 0.032  # half the length of a filter's response
BETA = 8.0  # of Kaiser's window: 80 dB of stop band, reached 80 Hz beyond the edge with this length
BLOCK = 1 << 17  # samples that are filtered at once
QUALITY = "VHQ"  # of soxr: errors below -100 dB at two thirds of the band


def analytic(samples: np.ndarray, rate_hz: float, start: int, stop: int, delay_s: float = 0.0) -> np.ndarray:
    """Samples start .. stop of the analytic signal, complex128 [stop - start], of a signal [N] that may end before.

    Its real part is the signal, delayed by `delay_s`, which need not be a whole number of samples; its spectrum is
    empty below zero, except within 40 Hz of zero.
    """
    whole = round(delay_s * rate_hz)
    taps = _analytic_taps(round(HALF_S * rate_hz), round(delay_s * rate_hz - whole, 9))
    return _filtered(samples, taps, start - whole, stop - whole)


def analytic_blocks(samples: np.ndarray, rate_hz: float) -> Iterator[tuple[int, np.ndarray]]:
    """The analytic signal in pieces: (number of the first sample, complex128 [up to BLOCK])."""
    for start in range(0, len(samples), BLOCK):
        yield start, analytic(samples, rate_hz, start, min(start + BLOCK, len(samples)))


def positive_part(baseband: np.ndarray, rate_hz: float) -> np.ndarray:
    """Real part of what lies above 0 Hz in a complex signal: of an analytic signal, the signal. float32 [N]"""
    taps = _analytic_taps(round(HALF_S * rate_hz), 0.0) / 2
    out = np.empty(len(baseband), np.float32)
    for start in range(0, len(baseband), BLOCK):
        stop = min(start + BLOCK, len(baseband))
        out[start:stop] = np.real(_filtered(baseband, taps, start, stop))
    return out


def band_pass(samples: np.ndarray, rate_hz: float, low_hz: float, high_hz: float) -> np.ndarray:
    """What lies between two frequencies, float32 [N]; half the amplitude is left at each."""
    taps = _band_taps(round(HALF_S * rate_hz), 2 * low_hz / rate_hz, 2 * high_hz / rate_hz)
    out = np.empty(len(samples), np.float32)
    for start in range(0, len(samples), BLOCK):
        stop = min(start + BLOCK, len(samples))
        out[start:stop] = np.real(_filtered(samples, taps, start, stop))
    return out


def resample(samples: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Samples taken `to_hz` times a second instead of `from_hz` times, float32 or complex64 [N to_hz / from_hz].

    The ratio need not be rational. What lies beyond 0.91 of half the lower rate is filtered away.
    """
    blocks = resample_blocks([samples[i : i + BLOCK] for i in range(0, len(samples), BLOCK)], from_hz, to_hz)
    return np.concatenate(list(blocks)) if len(samples) else samples


def resample_blocks(blocks: Iterable[np.ndarray], from_hz: float, to_hz: float) -> Iterator[np.ndarray]:
    """As `resample`, for a signal that comes in pieces."""
    if from_hz == to_hz:
        yield from blocks
        return
    stream = block = None
    for block in blocks:
        stream = stream or soxr.ResampleStream(from_hz, to_hz, 1 + np.iscomplexobj(block), "float32", QUALITY)
        yield _resampled(stream, block, False)
    if stream is not None and block is not None:
        yield _resampled(stream, block[:0], True)


def _resampled(stream: soxr.ResampleStream, block: np.ndarray, last: bool) -> np.ndarray:
    """Complex samples go through soxr as two channels."""
    if not np.iscomplexobj(block):
        return stream.resample_chunk(block.astype(np.float32, copy=False), last=last)
    parts = block.astype(np.complex64, copy=False).view(np.float32).reshape(-1, 2)
    return np.ascontiguousarray(stream.resample_chunk(parts, last=last)).view(np.complex64).reshape(-1)


def _filtered(samples: np.ndarray, taps: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Samples start .. stop of the convolution of [N] with taps [2 half + 1], whose middle is time 0."""
    half = len(taps) // 2
    first, last = start - half, stop + half  # what these samples depend on
    piece = samples[max(first, 0) : max(last, 0)]
    padded = np.zeros(last - first, np.result_type(samples, np.float64))
    begin = max(first, 0) - first
    padded[begin : begin + len(piece)] = piece
    size = 1 << (len(padded) - 1).bit_length()  # no wrap-around reaches the samples that are kept
    convolved = np.fft.ifft(np.fft.fft(padded, size) * np.fft.fft(taps, size))
    return convolved[2 * half : 2 * half + stop - start]


@functools.lru_cache(maxsize=16)
def _analytic_taps(half: int, delay: float) -> np.ndarray:
    """sinc(t) + j (1 - cos pi t) / (pi t), the response of a filter for positive frequencies, at t = n - delay."""
    t = np.arange(-half, half + 1) - delay
    hilbert = np.sin(np.pi * t / 2) * np.sinc(t / 2)
    return (np.sinc(t) + 1j * hilbert) * _window(t, half)


@functools.lru_cache(maxsize=16)
def _band_taps(half: int, low: float, high: float) -> np.ndarray:
    """A band-pass filter; low and high as shares of half the sampling rate."""
    t = np.arange(-half, half + 1)
    return (high * np.sinc(high * t) - low * np.sinc(low * t)) * _window(t, half)


def _window(t: np.ndarray, half: int) -> np.ndarray:
    return np.i0(BETA * np.sqrt(np.clip(1 - (t / (half + 1)) ** 2, 0, 1))) / np.i0(BETA)
