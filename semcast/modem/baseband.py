"""The recording as complex baseband: 4 kHz, 0 Hz where 1550 Hz was, without steady tones.

Blocks of two seconds overlap by half, with a sine window before and after, so that they add up to the signal. In each
block's spectrum the band is kept, and what sticks out as a line is removed: a carrier, a whistle, mains hum.
"""

import numpy as np

from .profiles import RATE_HZ

BASE_HZ = RATE_HZ // 2  # samples a second
CENTRE_HZ = 1550
HALF_BAND_HZ, EDGE_HZ = 1250, 150  # kept around the centre: the carriers and 150 Hz of offset
BLOCK = 2 * RATE_HZ  # samples, so bins are 0.5 Hz apart and 1550 Hz is one of them
HOP = BLOCK // 2
LINE_FACTOR = 50.0  # a line has so much more power than the median around it; OFDM never exceeds it
GROUP = 125  # bins of a median, 62.5 Hz
SKIRT = 3  # bins on either side that go with a line

_BINS = np.arange(HOP) + (CENTRE_HZ * BLOCK // RATE_HZ - HOP // 2)  # of the real signal's spectrum
_AWAY_HZ = np.abs(_BINS * (RATE_HZ / BLOCK) - CENTRE_HZ)
_BAND = (0.5 + 0.5 * np.cos(np.pi * np.clip((_AWAY_HZ - HALF_BAND_HZ) / EDGE_HZ, 0, 1))).astype(np.float32)
_WINDOW = np.sin(np.pi * (np.arange(BLOCK) + 0.5) / BLOCK).astype(np.float32)


def baseband(samples: np.ndarray, first: int, last: int) -> np.ndarray:
    """Samples first .. last - 1 of the baseband, complex64. Outside the recording there is silence.

    Args:
        samples: the recording [n] at 8 kHz, real; only the part that is needed is read, so a memory map will do.
        first, last: in samples at 4 kHz; `first` may be negative.
    """
    half = HOP // 2  # a hop at 4 kHz
    blocks = range(first // half - 1, -(-last // half))  # block b begins at sample b HOP
    z = np.zeros(((len(blocks) + 1) * half,), np.complex64)
    for i, b in enumerate(blocks):
        z[i * half : (i + 2) * half] += one_block(cut(samples, b * HOP, (b + 2) * HOP))
    skip = first - blocks[0] * half
    return z[skip : skip + last - first]


def one_block(block: np.ndarray) -> np.ndarray:
    """A block [16000] of the recording -> [8000] complex, windowed for overlap and add."""
    if not block.any():
        return np.zeros(HOP, np.complex64)
    spectrum = np.fft.rfft(block * _WINDOW)  # float32 throughout
    shifted = np.zeros(HOP, np.complex64)
    inside = _BINS >= 0
    shifted[inside] = spectrum[_BINS[inside]]
    shifted *= _BAND
    remove_lines(shifted)
    # each window meets the other's sine at 4 kHz: sample n of it is sample 2 n of the block
    return np.fft.ifft(np.fft.ifftshift(shifted)) * _WINDOW[::2]


def remove_lines(spectrum: np.ndarray) -> None:
    """Set to 0, in place, what exceeds the median of its surroundings [8000] by LINE_FACTOR."""
    strength = power(spectrum)
    median = np.median(strength.reshape(-1, GROUP), axis=1)
    median = np.maximum(np.maximum(median, np.roll(median, 1)), np.roll(median, -1))  # at the edge of a band: inside
    lines = np.flatnonzero(strength.reshape(-1, GROUP) > LINE_FACTOR * median[:, None])
    for shift in range(-SKIRT, SKIRT + 1):
        spectrum[(lines + shift) % spectrum.size] = 0


def cut(samples: np.ndarray, first: int, last: int) -> np.ndarray:
    """samples[first:last], with zeros where there are none."""
    inside = samples[max(first, 0) : max(last, 0)]
    if inside.size == last - first:
        return inside
    padded = np.zeros(last - first, samples.dtype)
    at = max(-first, 0)
    padded[at : at + inside.size] = inside
    return padded


def power(z: np.ndarray) -> np.ndarray:
    """|z|^2, without the square root that np.abs takes."""
    return np.square(np.real(z)) + np.square(np.imag(z))
