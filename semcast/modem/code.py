"""Error correction of the header: a tail-biting convolutional code of rate 1/4, decoded with soft decisions.

The bits of generator 1 come first, then those of generator 2, 3, 4, and again: the two parts of a header are two
consecutive stretches of that circle, so that either can be decoded alone, and both together have the lower rate.

Source: generators from Proakis, Digital Communications, table 8.2-3 (rate 1/4, K = 11, free distance 29).
"""

import numpy as np

from ..channels.erasure import interleaver

MEMORY = 10  # constraint length less 1
GENERATORS = (0o2327, 0o2353, 0o2671, 0o3175)
STATES = 1 << MEMORY
_REGISTER = np.arange(2 * STATES)  # a state, and the bit that it has just lost on top
# +1 where a generator's bit is 0, -1 where it is 1, float32 [4, 2 STATES]
_SIGNS = np.stack([1 - 2 * (np.bitwise_count(_REGISTER & g) % 2).astype(np.float32) for g in GENERATORS])


def encode(data: bytes, count: int, part: int) -> np.ndarray:
    """QPSK symbols [count] complex of one part, 0 or 1, of a header."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    state = np.zeros(bits.size, int)
    for lag in range(MEMORY + 1):
        state |= np.roll(bits, lag).astype(int) << lag
    coded = np.concatenate([np.bitwise_count(state & g) % 2 for g in GENERATORS])
    sign = 1 - 2 * coded[circle(coded.size, count, part)].astype(float)
    first, second = (sign * scrambler(2 * count)).reshape(2, count)
    symbols = np.empty(count, complex)
    symbols[interleaver(count)] = (first + 1j * second) / np.sqrt(2)
    return symbols


def soft_bits(size_bytes: int, part: int, y: np.ndarray, h: np.ndarray, noise_var: np.ndarray) -> np.ndarray:
    """Log-likelihood ratios [4, bits] of the code's bits from one part's symbols; those of both parts add up."""
    order = interleaver(y.size)
    turned = 2 * np.sqrt(2) * (np.conj(h) * y / noise_var)[order]
    bits = np.concatenate([turned.real, turned.imag]) * scrambler(2 * y.size)
    size = len(GENERATORS) * 8 * size_bytes
    return np.bincount(circle(size, y.size, part), bits, size).reshape(len(GENERATORS), -1)


def decode(llr: np.ndarray) -> bytes:
    """The most likely header, by Viterbi's algorithm three times around the circle, of which the middle counts.

    Args:
        llr: [4, bits], positive where a coded bit is more likely 0.
    """
    bits = llr.shape[1]
    gain = (llr.T.astype(np.float32) @ _SIGNS).reshape(bits, 2, STATES)
    metric = np.zeros(STATES, np.float32)
    lost = np.empty((3 * bits, STATES), bool)  # which bit the register lost on the way to each state
    for step in range(3 * bits):
        zero, one = np.repeat(metric.reshape(2, -1), 2, axis=1) + gain[step % bits]
        lost[step] = one > zero
        metric = np.maximum(zero, one)
        metric -= metric[0]
    state, found = int(np.argmax(metric)), np.empty(3 * bits, np.uint8)
    for step in range(3 * bits - 1, -1, -1):
        found[step] = state & 1
        state = state >> 1 | int(lost[step, state]) << MEMORY - 1
    return np.packbits(found[bits : 2 * bits]).tobytes()


def circle(size: int, count: int, part: int) -> np.ndarray:
    """Which coded bits a part's `count` symbols carry, int [2 count]."""
    return (np.arange(2 * count) + part * 2 * count) % size


def scrambler(count: int) -> np.ndarray:
    """+1 or -1 [count]: the code alone would give an even header equal symbols, with a huge peak."""
    return 1.0 - 2.0 * (interleaver(count) % 2)
