"""Numbers as 64-bit floats over uncoded 16-QAM, and the rules that replace what cannot be right: the link of Img2Img-SC.

Each float is 16 symbols. A wrong bit in an exponent makes a number huge, tiny or NaN, so the receiver puts white noise
in place of NaN and of magnitudes above 10 or below 0.01. The last rule also destroys good numbers near zero: 0.8 % of
a normal latent's. Source: ispamm/Img2Img-SC, scripts/qam.py and semantic_i2i.py (`bin2float`).
"""

import hashlib
import math

import numpy as np
from numpy.random import Generator

from ...channels.base import Received, equalise

USES = 16  # symbols of a number
SMALLEST, LARGEST = 0.01, 10.0
LEVELS = np.array([-3, -1, 3, 1]) / math.sqrt(10)  # by two bits, Gray: neighbours differ in one
EDGE = 2 / math.sqrt(10)  # between the inner and the outer levels


def send_floats(numbers: np.ndarray) -> np.ndarray:
    """Numbers [n] -> x [1, 16 n] complex64, of unit power over the constellation."""
    bits = np.unpackbits(np.frombuffer(numbers.astype(">f8").tobytes(), np.uint8) ^ scrambler(8 * len(numbers)))
    first, second, third, fourth = bits.reshape(-1, 4).T
    x = LEVELS[2 * first + second] + 1j * LEVELS[2 * third + fourth]
    return x[None].astype(np.complex64)


def receive_floats(received: Received) -> np.ndarray:
    """What arrived -> numbers [n] float64, among them any that a float can be. Every symbol is decided by itself."""
    y = equalise(received, mmse=False)[0]
    parts = np.stack([y.real, y.imag], axis=1)  # [16 n, 2]
    bits = np.stack([parts > 0, np.abs(parts) < EDGE], axis=2).astype(np.uint8)  # [16 n, 2, 2]
    data = np.packbits(bits.ravel()) ^ scrambler(bits.size // 8)
    return np.frombuffer(data.tobytes(), ">f8").astype(np.float64)


def repair(numbers: np.ndarray, generator: Generator) -> np.ndarray:
    """Put white noise N(0, 1) in place of NaN and of magnitudes above 10 or below 0.01."""
    size = np.abs(numbers)
    good = (size >= SMALLEST) & (size <= LARGEST)  # false for NaN
    return np.where(good, numbers, generator.standard_normal(numbers.shape))


def scrambler(size_bytes: int) -> np.ndarray:
    """A fixed pattern: it makes all 16 points equally frequent, as the published model of independent bit flips has it."""
    return np.frombuffer(hashlib.shake_128(b"img2img").digest(size_bytes), np.uint8)
