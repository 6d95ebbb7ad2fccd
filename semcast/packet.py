"""semcast in digital clothes: symbols x -> a packet of bytes -> what an analog receiver can use.

x [1, k] -> code [16, hz, wz] -> KLT over the 16 channels -> DCT over hz x wz of the strongest -> quantised -> entropy-coded -> bytes
Both ends compute the KLT from the encoder's codes of the bundled photo, so it costs nothing. What the transforms are worth:
`benchmarks/packet_gain.py`.
The range coder is constriction's (`semcast[phy]`). Layout of a packet: PROTOCOL.md.
"""

import copy
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from .cascade.encoder import Encoder
from .channel import Received
from .errors import InputError, Lost
from .images import read_image
from .phy import digital
from .transmitter import Header, demodulate, encode, stamp

NO_CHANNEL = 255  # `Header.scheme` of a packet made for no channel; 1 .. 16 are rows of `digital.TABLE`
SIDE_BITS = 24  # beside the header: the mean colour, which is all there is of a lost picture
SIZE_MIN, SIZE_MAX = 16, 2048  # bytes to ask for; the largest holds where there is no channel
SMOOTH = 4  # strongest directions, which change slowly from cell to cell; the DCT would only spread the others' few large numbers
BASIS_FACTOR = 0.75  # at both ends, whatever a picture's `factor` is
STEP_MAX, STEPS_PER_OCTAVE = 32.0, 24  # of 256 steps; unit power
NOISE_UNIT_DB = 0.2
SCALES = 26  # 0: all are zero. s > 0: Laplace, of which one step more makes u^8 as many; u halves its logarithm every second s
ROOTS = (0.36787944117144233, 0.4930686913952398)  # u of s = 1 and 2: exp(-1) and exp(-1 / sqrt(2))
EIGHTHS = 3  # numbers from n - 3/8 on become n: a dead zone (4 would be plain rounding)


def prepare(
    x: Tensor, header: Header, basis: np.ndarray, snr_db: float | None = None, size_bytes: int | None = None
) -> tuple[bytes, Header]:
    """Symbols of one picture [1, k] and their header -> (payload, header of the packet).

    Args:
        basis: of `make_basis`.
        snr_db: fill what k uses of AWGN carry at this SNR, with at most 1 % of packets lost; or
        size_bytes: use at most as many, for no channel.
    Raises:
        Lost: k uses at this SNR carry no packet.
        InputError: size_bytes are too few.
    """
    if size_bytes is not None:
        scheme, payload = NO_CHANNEL, pack(x, header.code_shape, basis, size_bytes)
    else:
        k, mcs = x.shape[1], digital.choose(x.shape[1], snr_db)
        room = digital.plan(k, mcs).payload_bytes if mcs else 0
        constriction()  # lacking it is no loss
        try:
            payload = pack(x, header.code_shape, basis, room).ljust(room, b"\0")
        except InputError:
            raise Lost(f"{k} channel uses at {snr_db:g} dB carry {room} bytes, too few for a packet; raise --snr or send analog") from None
        scheme = digital.TABLE.index(mcs) + 1
    header = Header(header.code_id, header.height, header.width, header.factor, header.gain, header.seed, scheme)
    return payload, stamp(header, payload)


def find_scheme(header: Header) -> digital.Mcs:
    """Modulation and code of a packet."""
    if not 1 <= header.scheme <= len(digital.TABLE):
        raise InputError("the packet was made with --bytes, for no channel; send it with --snr")
    return digital.TABLE[header.scheme - 1]


def on_air(payload: bytes, header: Header) -> Tensor:
    """Payload -> QAM symbols [1, k]."""
    return digital.encode([payload], header.channel_uses, find_scheme(header))


def arrive(signal: bytes | Received, header: Header, basis: np.ndarray) -> Received:
    """A payload, or what a channel made of its QAM symbols -> the quantised x, as `unpack`.

    Raises:
        Lost: its checksum fails.
        InputError: it belongs to another header, or is no packet.
    """
    payload = signal if isinstance(signal, bytes) else digital.decode(signal, find_scheme(header))[0]
    if payload is None:
        raise Lost(f"the packet was lost on the channel (its checksum fails; it was sent with {find_scheme(header)}); send it again")
    if stamp(header, payload).transmission_id != header.transmission_id:
        raise InputError("the packet belongs to another transmission than its header; fetch it again")
    return unpack(payload, header.code_shape, basis)


def mean_colour(image: Tensor) -> Tensor:
    """What there is of a lost picture, 24 bits: [1, 3, H, W] -> the same of one colour, rounded to 8 bits."""
    return ((image.mean(dim=(2, 3), keepdim=True) * 255).round() / 255).expand_as(image)


# Symbols and bytes


def pack(x: Tensor, shape: tuple[int, int, int], basis: np.ndarray, size_bytes: int) -> bytes:
    """x [1, k] of unit power -> at most size_bytes, with the finest step that fits."""
    numbers = transform(x, shape, basis)
    low, high, best = -1, 256 if size_bytes >= SIZE_MIN else 0, None  # low fits
    while high - low > 1:
        index = (low + high) // 2
        data = attempt(numbers, index, size_bytes)
        low, high, best = (low, index, best) if data is None else (index, high, data)
    if best is None:
        raise InputError(f"{size_bytes} bytes are too few for this picture; give more")
    return best


def attempt(numbers: np.ndarray, index: int, size_bytes: int) -> bytes | None:
    """A packet with step `index`, or None if it has more bytes."""
    q = quantise(numbers, index)
    scales = choose_scales(q)
    if scales is None:
        return None
    stream = squeeze(entropy_encode(q, scales), q, size_bytes - 2)
    error = 2 * np.square(numbers - dequantise(q, scales, index)).mean()  # of x, which has unit power
    noise = min(max(round(-10 * math.log10(max(error, 1e-9)) / NOISE_UNIT_DB), 0), 255)
    return None if stream is None else bytes([index, noise]) + stream


def unpack(data: bytes, shape: tuple[int, int, int], basis: np.ndarray) -> Received:
    """A packet -> the quantised x as if received over AWGN: y = x + n, h = 1, noise_var the mean variance of n.

    x', the quantised x, is its conditional mean: with the error D, x' = (1 - D) x + d, d uncorrelated with x and
    Var(d) = D (1 - D). So y = x' / (1 - D) has the noise D / (1 - D), and an MMSE receiver makes x' of it again.
    """
    if len(data) < 2:
        raise InputError("the packet is too short; fetch it again")
    q, scales = entropy_decode(data[2:], shape)
    x = inverse_transform(dequantise(q, scales, data[0]), basis)
    error = min(10 ** (-NOISE_UNIT_DB * data[1] / 10), 0.999)
    return Received(x / (1 - error), torch.ones(1, 1, dtype=x.dtype), torch.full((1, 1), error / (1 - error)))


# Transforms, all orthonormal


@torch.inference_mode()
def make_basis(encoder: Encoder) -> np.ndarray:
    """The KLT of an encoder's codes: [16, 16], rows are directions, the strongest first.

    From the bundled photo, with its colours exchanged, inverted and removed, so that no colour of its own counts. Signs are
    fixed, because eigenvectors have none.
    """
    encoder = copy.deepcopy(encoder).cpu().double()  # both ends must agree to the last digit that matters
    photo = read_image(Path(__file__).with_name("assets") / "astronaut.jpg").double()
    versions = [photo, photo[:, [1, 2, 0]], photo[:, [2, 0, 1]], 1 - photo, photo.mean(dim=1, keepdim=True).expand_as(photo)]
    codes = torch.cat([encode(image, encoder, BASIS_FACTOR) for image in versions]).numpy()
    codes /= np.sqrt(np.square(codes).mean(axis=(1, 2, 3), keepdims=True)) + 1e-12
    basis = np.linalg.eigh(np.einsum("nchw,ndhw->cd", codes, codes))[1].T[::-1]
    return basis * np.sign(np.take_along_axis(basis, np.abs(basis).argmax(axis=1, keepdims=True), axis=1))


def transform(x: Tensor, shape: tuple[int, int, int], basis: np.ndarray) -> np.ndarray:
    """x [1, k] -> numbers [16, hz, wz] of the same energy."""
    numbers = np.einsum("cd,dij->cij", basis, demodulate(x.cpu(), 1.0, shape)[0].double().numpy())
    numbers[:SMOOTH] = dct(shape[1]) @ numbers[:SMOOTH] @ dct(shape[2]).T
    return numbers


def inverse_transform(numbers: np.ndarray, basis: np.ndarray) -> Tensor:
    smooth = dct(numbers.shape[1]).T @ numbers[:SMOOTH] @ dct(numbers.shape[2])
    code = np.einsum("cd,cij->dij", basis, np.concatenate([smooth, numbers[SMOOTH:]]))
    real, imag = torch.from_numpy(code).float().reshape(1, -1).chunk(2, dim=1)  # [1, k] each
    return torch.complex(real, imag)


def dct(n: int) -> np.ndarray:
    """The orthonormal DCT-II [n, n], rows are frequencies."""
    rows = np.cos(np.pi * np.arange(n)[:, None] * (2 * np.arange(n) + 1) / (2 * n)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


# Quantiser


def quantise(numbers: np.ndarray, index: int) -> np.ndarray:
    size = np.floor(np.abs(numbers) / step(index) + EIGHTHS / 8)
    return np.copysign(size, numbers).astype(np.int64)


def dequantise(q: np.ndarray, scales: np.ndarray, index: int) -> np.ndarray:
    """The mean of all numbers that became q, as the Laplace distribution of q's group has it. Zero stays zero."""
    decay = -8 * np.log([1e-9, *(root(s) for s in range(1, SCALES))])  # a step
    inside = 1 / decay - 1 / np.expm1(decay)  # of a step, from its lower end
    offset = inside[np.take_along_axis(scales, groups(q.shape).reshape(len(q), -1), axis=1)].reshape(q.shape) - EIGHTHS / 8
    return np.sign(q) * (np.abs(q) + offset) * step(index)


def step(index: int) -> float:
    return STEP_MAX * 2 ** (-index / STEPS_PER_OCTAVE)


# Entropy code: a scale for each group, then the numbers of each group. Its probabilities come from +, *, / and square roots,
# which round the same on every machine; a logarithm or an exponential might not, and one bit would end the decoding.


@functools.lru_cache(maxsize=16)
def groups(shape: tuple[int, int, int]) -> np.ndarray:
    """Which group of its channel each number belongs to, [16, hz, wz] of 0, 1, ...

    After a DCT, octaves of frequency: the larger of both frequencies below 2, 4, ... of the longer side's. Else all one.
    """
    sides = shape[1:]
    frequency = np.maximum.outer(*(np.arange(n) * max(sides) // n for n in sides))
    at = np.zeros(shape, dtype=int)
    at[:SMOOTH] = np.frexp(np.maximum(frequency, 1))[1] - 1
    return at


def coded(shape: tuple[int, int, int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """(channel, group, where [hz, wz] it is) in the order in which groups are coded."""
    for c, at in enumerate(groups(shape)):
        for group in range(at.max() + 1):
            yield c, group, at == group


@functools.cache
def root(s: int) -> float:
    """u of scale s; see SCALES."""
    return ROOTS[s - 1] if s <= 2 else math.sqrt(root(s - 2))


def largest(s: int) -> int:
    """The largest number that scale s can code: beyond, 2^-23 or less is left."""
    return 4 << (s // 2) if s else 0


def choose_scales(q: np.ndarray) -> np.ndarray | None:
    """The scale [16, groups] that codes each group with the fewest bits; None if numbers are too large for any."""
    s = np.arange(1, SCALES)
    u, room = np.array([root(i) for i in s]), np.array([largest(i) for i in s])
    nats_zero, nats_first, nats_next = -np.log1p(-(u ** (8 - EIGHTHS))), -np.log(u ** (8 - EIGHTHS) * (1 - u**8) / 2), -8 * np.log(u)
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
def number_model(s: int):
    """Of a number of scale s, shifted to be 0 .. 2 largest(s)."""
    u, n = root(s), largest(s)
    eighths = np.cumprod(np.full(8, u))  # u, u^2, ... u^8
    first = eighths[7 - EIGHTHS]
    tail = first * (1 - eighths[7]) / 2 * np.cumprod(np.r_[1.0, np.full(n - 1, eighths[7])])  # of 1, 2, ... n
    return constriction().stream.model.Categorical(np.r_[tail[::-1], 1 - first, tail], perfect=False)


@functools.lru_cache(maxsize=64)
def scale_model(last: int):
    """Of a scale, given that of the group before, or of the first group of the channel before."""
    s = np.arange(SCALES)
    chance = np.ldexp(1.0, -np.abs(s - max(last - 1, 0))) + 1 / 64
    chance[0] += 8 if last == 0 else 0.5 if last < 4 else 0
    return constriction().stream.model.Categorical(chance, perfect=False)


def entropy_encode(q: np.ndarray, scales: np.ndarray) -> bytes:
    coder = constriction().stream.queue.RangeEncoder()
    for c, group, where in coded(q.shape):
        s = int(scales[c, group])
        coder.encode(s, scale_model(before(scales, c, group)))
        if s:
            coder.encode((q[c][where] + largest(s)).astype(np.int32), number_model(s))
    return coder.get_compressed().astype(">u4").tobytes()


def entropy_decode(data: bytes, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bytes -> (q [16, hz, wz], scales [16, groups]). Zeros after the end may be missing, and bytes after it mean nothing."""
    q, scales = np.zeros(shape, dtype=np.int64), np.zeros((shape[0], groups(shape).max() + 1), dtype=int)
    words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
    coder = constriction().stream.queue.RangeDecoder(words)
    try:
        for c, group, where in coded(shape):
            s = scales[c, group] = coder.decode(scale_model(before(scales, c, group)))
            if s:
                q[c][where] = coder.decode(number_model(int(s)), int(where.sum())) - largest(int(s))
    except (AssertionError, ValueError):
        raise InputError("the packet is damaged (it decodes to no numbers); fetch it again") from None
    return q, scales


def before(scales: np.ndarray, c: int, group: int) -> int:
    return int(scales[c, group - 1] if group else scales[c - 1, 0] if c else 12)


def squeeze(stream: bytes, q: np.ndarray, room: int) -> bytes | None:
    """The coder's stream in at most `room` bytes, if it fits.

    It ends on a whole word of 4 bytes, of which up to 3 can go: what remains, or the next larger number, means the same.
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


def constriction() -> ModuleType:
    """Imported on first use.

    Raises:
        InputError: it is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise InputError(f"this needs constriction ({error}): pip install 'semcast[phy]'") from None
    return constriction
