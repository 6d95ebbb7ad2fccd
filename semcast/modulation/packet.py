"""Z as bytes: transform, quantise, entropy-code; and back to symbols as an analog receiver takes them.

x [1, k] -> Z [16, hz, wz] -> KLT over the 16 channels -> DCT over hz x wz of the strongest -> quantiser -> range coder
Both ends compute the KLT from the encoder's Z of the bundled photo, so it is not sent. `benchmarks/packet_gain.py`
measures what the transforms gain. PROTOCOL.md gives the layout of a packet.
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from ..channels.base import Received, ones
from ..errors import InputError
from ..images import PHOTO, read_image
from ..transmitter import encode
from .analog import unflatten
from .range_coder import Decoder, Encoder, cumulative

VERSION = 3  # of the protocol that last changed packets
SIZE_MIN, SIZE_MAX = 16, 2048  # bytes that can be asked for; over a channel, a packet may be larger
SMOOTH = 4  # strongest KLT directions, which get a DCT; the others have few large numbers, which a DCT would spread
BASIS_FACTOR = 0.75  # `factor` of the bundled photo, independent of the picture's
STEP_MAX, STEPS_PER_OCTAVE = 32.0, 24  # step i of 256 is STEP_MAX 2^(-i / STEPS_PER_OCTAVE), for x of unit power
NOISE_UNIT_DB = 0.2  # unit of the byte that holds the quantisation error
# Each group of numbers has one of 26 scales. Scale 0 means that all are zero. Scale s > 0 is a Laplace distribution in
# which n + 1 is u^8 times as likely as n; ln u of scale s + 2 is half that of scale s.
SCALES = 26
ROOTS = (0.36787944117144233, 0.4930686913952398)  # u of s = 1 and 2: exp(-1) and exp(-1 / sqrt(2))
EIGHTHS = 3  # magnitudes from n - 3/8 become n, which widens the zero bin (4 would be plain rounding)


# Symbols and bytes


def pack(x: np.ndarray, shape: tuple[int, int, int], basis: np.ndarray, size_bytes: int) -> bytes:
    """Pack x [1, k] of unit power into at most size_bytes, with the finest quantiser step that fits."""
    numbers = transform(x, shape, basis)
    low, high, best = -1, 256 if size_bytes >= SIZE_MIN else 0, None  # step `low` fits
    while high - low > 1:
        index = (low + high) // 2
        data = attempt(numbers, index, size_bytes)
        low, high, best = (low, index, best) if data is None else (index, high, data)
    if best is None:
        raise InputError(f"{size_bytes} bytes are too few for this picture; give more")
    return best


def attempt(numbers: np.ndarray, index: int, size_bytes: int) -> bytes | None:
    """Make a packet with step `index`, or None if it needs more than size_bytes."""
    q = quantise(numbers, index)
    scales = choose_scales(q)
    if scales is None:
        return None
    stream = squeeze(entropy_encode(q, scales), q, size_bytes - 2)
    error = 2 * np.square(numbers - dequantise(q, scales, index)).mean()  # mean square error of x, which has unit power
    noise = min(max(round(-10 * math.log10(max(error, 1e-9)) / NOISE_UNIT_DB), 0), 255)
    return None if stream is None else bytes([index, noise]) + stream


def unpack(data: bytes, shape: tuple[int, int, int], basis: np.ndarray) -> Received:
    """Unpack x as if received over AWGN: y = x + n, h = 1, noise_var the mean variance of n.

    The quantised x' is the conditional mean of x. With the mean square error D it is x' = (1 - D) x + d, where d is
    uncorrelated with x and Var(d) = D (1 - D). So y = x' / (1 - D) has noise_var D / (1 - D), and its MMSE estimate is
    x' again.
    """
    if len(data) < 2:
        raise InputError("the packet is too short; fetch it again")
    q, scales = entropy_decode(data[2:], shape)
    x = inverse_transform(dequantise(q, scales, data[0]), basis)
    error = min(10 ** (-NOISE_UNIT_DB * data[1] / 10), 0.999)
    noise_var = np.full((1, 1), error / (1 - error), np.float32)
    return Received(x / np.float32(1 - error), ones(x), noise_var)


# Transforms, all orthonormal


def make_basis(encoder: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The KLT [16, 16] of an encoder's Z; rows are directions, the strongest first.

    It comes from the bundled photo and from copies of it with colours exchanged, inverted and removed, so that the
    photo's own colours do not matter. Signs are fixed, because eigenvectors have no sign.
    """
    photo = read_image(PHOTO)
    grey = np.broadcast_to(photo.mean(axis=1, keepdims=True), photo.shape)
    versions = [photo, photo[:, [1, 2, 0]], photo[:, [2, 0, 1]], 1 - photo, grey]
    z = np.concatenate([encode(image, encoder, BASIS_FACTOR) for image in versions]).astype(np.float64)
    z /= np.sqrt(np.square(z).mean(axis=(1, 2, 3), keepdims=True)) + 1e-12
    basis = np.linalg.eigh(np.einsum("nchw,ndhw->cd", z, z))[1].T[::-1]
    return basis * np.sign(np.take_along_axis(basis, np.abs(basis).argmax(axis=1, keepdims=True), axis=1))


def transform(x: np.ndarray, shape: tuple[int, int, int], basis: np.ndarray) -> np.ndarray:
    """Transform x [1, k] into numbers [16, hz, wz] of the same energy."""
    numbers = np.einsum("cd,dij->cij", basis, unflatten(x, 1.0, shape)[0].astype(np.float64))
    numbers[:SMOOTH] = dct(shape[1]) @ numbers[:SMOOTH] @ dct(shape[2]).T
    return numbers


def inverse_transform(numbers: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Invert `transform`: numbers [16, hz, wz] -> x [1, k]."""
    smooth = dct(numbers.shape[1]).T @ numbers[:SMOOTH] @ dct(numbers.shape[2])
    z = np.einsum("cd,cij->dij", basis, np.concatenate([smooth, numbers[SMOOTH:]]))
    real, imag = z.reshape(2, 1, -1)  # [1, k] each
    return (real + 1j * imag).astype(np.complex64)


def dct(n: int) -> np.ndarray:
    """The orthonormal DCT-II [n, n], rows are frequencies."""
    rows = np.cos(np.pi * np.arange(n)[:, None] * (2 * np.arange(n) + 1) / (2 * n)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


# Quantiser


def quantise(numbers: np.ndarray, index: int) -> np.ndarray:
    """Round numbers to multiples of step `index`, as int64."""
    size = np.floor(np.abs(numbers) / step(index) + EIGHTHS / 8)
    return np.copysign(size, numbers).astype(np.int64)


def dequantise(q: np.ndarray, scales: np.ndarray, index: int) -> np.ndarray:
    """The mean of the numbers that round to q, for the Laplace distribution of q's group. Zero stays zero."""
    decay = -8 * np.log([1e-9, *(root(s) for s in range(1, SCALES))])  # of the density over one step
    inside = 1 / decay - 1 / np.expm1(decay)  # mean position within a step, from its lower end
    s = np.take_along_axis(scales, groups(q.shape).reshape(len(q), -1), axis=1).reshape(q.shape)
    offset = inside[s] - EIGHTHS / 8
    return np.sign(q) * (np.abs(q) + offset) * step(index)


def step(index: int) -> float:
    """Size of a quantiser step."""
    return STEP_MAX * 2 ** (-index / STEPS_PER_OCTAVE)


# Entropy code: a scale for each group, followed by the numbers of the group. The probabilities are computed with +, *,
# / and square roots, which round the same on every machine. A logarithm or an exponential might not, and one different
# bit would break the decoding.


@functools.lru_cache(maxsize=16)
def groups(shape: tuple[int, int, int]) -> np.ndarray:
    """The group that each number belongs to within its channel, [16, hz, wz] of 0, 1, ...

    A channel with a DCT has a group per octave of frequency: the larger of the two frequencies, in units of the longer
    side, lies below 2, 4, ... Any other channel is one group.
    """
    sides = shape[1:]
    frequency = np.maximum.outer(*(np.arange(n) * max(sides) // n for n in sides))
    at = np.zeros(shape, dtype=int)
    at[:SMOOTH] = np.frexp(np.maximum(frequency, 1))[1] - 1
    return at


def coded(shape: tuple[int, int, int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (channel, group, mask [hz, wz]) in the order in which groups are coded."""
    for c, at in enumerate(groups(shape)):
        for group in range(at.max() + 1):
            yield c, group, at == group


@functools.cache
def root(s: int) -> float:
    """u of scale s > 0; see SCALES."""
    return ROOTS[s - 1] if s <= 2 else math.sqrt(root(s - 2))


def largest(s: int) -> int:
    """The largest magnitude that scale s can code; larger ones have a probability of at most 2^-23."""
    return 4 << (s // 2) if s else 0


def choose_scales(q: np.ndarray) -> np.ndarray | None:
    """The scale [16, groups] that codes each group with the fewest bits, or None if a number is too large for all."""
    s = range(1, SCALES)
    u, room = np.array([root(i) for i in s]), np.array([largest(i) for i in s])
    nats_zero, nats_next = -np.log1p(-(u ** (8 - EIGHTHS))), -8 * np.log(u)
    nats_first = -np.log(u ** (8 - EIGHTHS) * (1 - u**8) / 2)
    scales = np.zeros((len(q), groups(q.shape).max() + 1), dtype=int)
    for c, group, where in coded(q.shape):
        sizes = np.abs(q[c][where])
        if sizes.any():
            count, total = np.count_nonzero(sizes), sizes.sum()
            nats = (len(sizes) - count) * nats_zero + count * nats_first + (total - count) * nats_next
            scales[c, group] = 1 + np.where(room >= sizes.max(), nats, np.inf).argmin()
            if sizes.max() > room[-1]:
                return None
    return scales


@functools.lru_cache(maxsize=64)
def number_table(s: int) -> list[int]:
    """The coder's table of a number of scale s, shifted to 0 .. 2 largest(s)."""
    u, n = root(s), largest(s)
    eighths = np.cumprod(np.full(8, u))  # u, u^2, ... u^8
    first = eighths[7 - EIGHTHS]
    powers = np.cumprod(np.r_[1.0, np.full(n - 1, eighths[7])])
    tail = first * (1 - eighths[7]) / 2 * powers  # probabilities of 1, 2, ... n
    return cumulative(np.r_[tail[::-1], 1 - first, tail].tolist())


@functools.lru_cache(maxsize=64)
def scale_table(last: int) -> list[int]:
    """The coder's table of a scale that follows the scale `last` (see `before`)."""
    s = np.arange(SCALES)
    chance = np.ldexp(1.0, -np.abs(s - max(last - 1, 0))) + 1 / 64
    chance[0] += 8 if last == 0 else 0.5 if last < 4 else 0
    return cumulative(chance.tolist())


def entropy_encode(q: np.ndarray, scales: np.ndarray) -> bytes:
    """Code q [16, hz, wz] and scales [16, groups] as whole words of 4 bytes."""
    coder = Encoder()
    for c, group, where in coded(q.shape):
        s = int(scales[c, group])
        coder.encode([s], scale_table(before(scales, c, group)))
        if s:
            coder.encode((q[c][where] + largest(s)).tolist(), number_table(s))
    return np.array(coder.finish(), ">u4").tobytes()


def entropy_decode(data: bytes, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Decode q [16, hz, wz] and scales [16, groups]. Zeros at the end may be missing; more bytes are ignored."""
    q, scales = np.zeros(shape, dtype=np.int64), np.zeros((shape[0], groups(shape).max() + 1), dtype=int)
    coder = Decoder(np.frombuffer(data + bytes(-len(data) % 4), ">u4").tolist())
    try:
        for c, group, where in coded(shape):
            (s,) = coder.decode(1, scale_table(before(scales, c, group)))
            scales[c, group] = s
            if s:
                q[c][where] = np.array(coder.decode(int(where.sum()), number_table(s))) - largest(s)
    except ValueError:
        raise InputError("the packet is damaged (it decodes to no numbers); fetch it again") from None
    return q, scales


def before(scales: np.ndarray, c: int, group: int) -> int:
    """The scale of the group before, or of the first group in the channel before; 12 for the first of all."""
    return int(scales[c, group - 1] if group else scales[c - 1, 0] if c else 12)


def squeeze(stream: bytes, q: np.ndarray, room: int) -> bytes | None:
    """Shorten the coder's stream to at most `room` bytes, or return None if it does not fit.

    The stream ends on a whole word of 4 bytes. Up to 3 of them can be cut if the rest, or the next larger number, still
    decodes to q.
    """
    stream = stream.rstrip(b"\0")
    if len(stream) <= room:
        return stream
    if len(stream) > room + 3 or room < 0:
        return None
    head = int.from_bytes(stream[:room], "big")
    for candidate in (number.to_bytes(room, "big") for number in (head, head + 1) if number < 256**room):
        with_zeros = candidate + bytes(8)
        try:
            if np.array_equal(entropy_decode(with_zeros, q.shape)[0], q):
                return candidate
        except InputError:
            continue
    return None
