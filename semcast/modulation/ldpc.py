"""The digital link: bytes -> CRC -> 5G LDPC code -> QAM -> any channel -> the same bytes, or None.

payload, zero-padded to the plan's size -> 24-bit CRC -> scrambled -> C code blocks of equal size -> LDPC (TS 38.212,
with rate matching and bit interleaver) -> QAM -> exactly k complex symbols of unit mean power.
Code and modulation are Sionna's. Its transport block encoder is not used: it rounds sizes and can drop bits silently.
"""

import functools
import hashlib
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from ..channels.base import Received
from ..channels.catalogue import find_channel
from ..errors import InputError
from ..randomness import keep_random_state, sionna
from .capacity import required_snr_db

if TYPE_CHECKING:
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
    from sionna.phy.mapping import Mapper

BITS = {"qpsk": 2, "16qam": 4, "64qam": 6, "256qam": 8}
MIN_INFO_BITS = 12  # smallest code block of TS 38.212
CRC_BITS, CRC_POLYNOMIAL = 24, 0x864CFB  # CRC-24A
ROUNDS = (8, 3, 3, 3, 3)  # iterations of belief propagation, 20 in all; after each round, decoded payloads are done
TARGET_LOSS = 0.01
SHORT_MARGIN_DB = 0.5  # for blocks shorter than any measured; without it 0.5 to 3 % are lost at 288 and 72 uses
CURVES = Path(__file__).with_name("bler.json")
SIDE_BITS = 16 + 5  # size of the payload in bytes; row of TABLE


class Mcs(NamedTuple):
    """Modulation and coding scheme."""

    modulation: str
    rate: Fraction

    def __str__(self) -> str:
        return f"{self.modulation} {self.rate}"


_RATES = {
    "qpsk": "1/5 1/3 1/2 2/3 3/4",
    "16qam": "1/2 2/3 3/4 5/6",
    "64qam": "2/3 3/4 5/6",
    "256qam": "2/3 3/4 5/6 8/9",
}
TABLE = sorted(
    (Mcs(m, Fraction(r)) for m, rates in _RATES.items() for r in rates.split()),
    key=lambda mcs: BITS[mcs.modulation] * mcs.rate,
)


class Plan(NamedTuple):
    """How k uses are spent: all code blocks carry `info_bits`, block i takes uses[i] symbols."""

    payload_bytes: int
    info_bits: int
    uses: tuple[int, ...]


@functools.lru_cache(maxsize=256)
def plan(k: int, mcs: Mcs) -> Plan:
    """Lay out one transport block in exactly k complex uses.

    Raises:
        InputError: k uses cannot carry a byte and its CRC.
    """
    bits = BITS[mcs.modulation]
    limit = 3840 if mcs.rate <= Fraction(1, 4) else 8448  # base graph 2 or 1
    blocks = 1
    # info_bits is rounded up, because 1/5 is the lowest code rate
    while (info_bits := math.ceil(mcs.rate * bits * -(-k // blocks))) > limit:
        blocks += 1
    uses = tuple(k // blocks + (i < k % blocks) for i in range(blocks))
    payload_bytes = (blocks * info_bits - CRC_BITS) // 8
    if payload_bytes < 1 or info_bits < MIN_INFO_BITS:
        raise InputError(f"{k} channel uses are too few for {mcs}: they carry no byte beside its CRC")
    assert sum(uses) == k and 8 * payload_bytes + CRC_BITS <= blocks * info_bits
    return Plan(payload_bytes, info_bits, uses)


def encode(payloads: Sequence[bytes], k: int, mcs: Mcs) -> Tensor:
    """Payloads of at most `plan(k, mcs).payload_bytes` -> x [B, k] complex64, mean |x|^2 = 1 over the constellation."""
    size, info_bits, uses = plan(k, mcs)
    if bad := [len(p) for p in payloads if len(p) > size]:
        raise InputError(f"a payload has {bad[0]} bytes; {k} channel uses carry {size} with {mcs}")
    rows = []
    for payload in payloads:
        block = payload.ljust(size, b"\0")
        block += crc24(block).to_bytes(3, "big")
        bits = np.unpackbits(np.frombuffer(block, np.uint8) ^ scrambler(len(block)))
        rows.append(np.pad(bits, (0, len(uses) * info_bits - len(bits))))  # fewer than 8, not read
    info = torch.from_numpy(np.stack(rows)).float().view(len(rows), len(uses), info_bits)
    mapper = qam(mcs.modulation)
    return torch.cat([mapper(code(info_bits, n, mcs.modulation)[0](info[:, i])) for i, n in enumerate(uses)], dim=1)


def decode(received: Received, mcs: Mcs, sizes: Sequence[int] | None = None) -> list[bytes | None]:
    """Decode received symbols -> each payload, or None if its CRC fails.

    Args:
        sizes: sizes of the payloads in bytes, known as side information; without them the padding is returned too.
    """
    y, h, noise_var = (part.cpu() for part in received)
    size, info_bits, uses = plan(y.shape[1], mcs)
    power = h.abs().square().clamp_min(1e-12)
    noise = (noise_var / power).clamp(min=1e-9).expand_as(y.real)
    llr = demap(h.conj() * y / power, noise, mcs.modulation)
    parts = llr.split([n * BITS[mcs.modulation] for n in uses], dim=1)  # one part for each code block
    arrived: list[bytes | None] = [None] * len(llr)
    left = np.arange(len(llr))  # rows that have not arrived yet
    messages: list[Any] = [None] * len(uses)  # state of Sionna's decoder for each code block
    for iterations in ROUNDS:
        info = []
        for i, n in enumerate(uses):
            decoder = code(info_bits, n, mcs.modulation)[1]
            bits, messages[i] = decoder(parts[i][left], num_iter=iterations, msg_v2c=messages[i])
            info.append(bits)
        rows = torch.cat(info, dim=1)[:, : 8 * size + CRC_BITS].to(torch.uint8).numpy()
        blocks = [(np.packbits(row) ^ scrambler(size + 3)).tobytes() for row in rows]
        good = np.array([crc24(block[:size]) == int.from_bytes(block[size:], "big") for block in blocks])
        for i in np.flatnonzero(good):
            arrived[left[i]] = blocks[i][:size]
        left, messages = left[~good], [message[~good] for message in messages]
        if not len(left):
            break
    return arrived if sizes is None else [None if block is None else block[:n] for block, n in zip(arrived, sizes)]


def deliver(
    payloads: Sequence[bytes],
    k: int,
    mcs: Mcs,
    snr_db: float,
    generators: Sequence[Generator],
    channel: str = "awgn",
    **options,
) -> list[bytes | None]:
    """Send payloads over a channel by its name -> each as it was sent, or None if lost."""
    received = find_channel(channel)(encode(payloads, k, mcs), snr_db, generators, **options)
    return decode(received, mcs, [len(p) for p in payloads])


@functools.lru_cache(maxsize=64)
def code(info_bits: int, uses: int, modulation: str) -> "tuple[LDPC5GEncoder, LDPC5GDecoder]":
    """Sionna's LDPC encoder and decoder for one code block, on the CPU."""
    sionna()
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

    with keep_random_state():
        encoder = LDPC5GEncoder(info_bits, uses * BITS[modulation], num_bits_per_symbol=BITS[modulation], device="cpu")
        return encoder, LDPC5GDecoder(encoder, cn_update="boxplus", hard_out=True, return_state=True, device="cpu")


@functools.cache
def qam(modulation: str) -> "Mapper":
    """Sionna's Gray mapper of TS 38.211 on the CPU: bits [..., k m] -> unit-power symbols [..., k]."""
    sionna()
    from sionna.phy.mapping import Mapper

    with keep_random_state():
        return Mapper("qam", BITS[modulation], device="cpu")


def demap(y: Tensor, noise_var: Tensor, modulation: str) -> Tensor:
    """Symbols [B, k], noise variance [B, k] -> exact log p(1) / p(0) of their bits [B, k m]. Infinite noise gives 0.

    Even bits determine the real part and odd bits the imaginary part, so each part is one of only sqrt(M) amplitudes.
    """
    half = BITS[modulation] // 2
    labels = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * half).view(-1, half)  # [L, m / 2]
    levels = qam(modulation)(labels.repeat_interleave(2, dim=1)).real.flatten()  # [L]
    parts = torch.view_as_real(y.contiguous())  # [B, k, 2]
    logits = -(parts[..., None] - levels).square() / noise_var[..., None, None]  # [B, k, 2, L]
    ones = [
        logits[..., labels[:, i] == 1].logsumexp(-1) - logits[..., labels[:, i] == 0].logsumexp(-1) for i in range(half)
    ]
    return torch.stack(ones, dim=-2).flatten(1)  # [B, k, m / 2, 2] -> [B, k m]


def crc24(data: bytes) -> int:
    """CRC-24A, TS 38.212, 5.1: x^24 + x^23 + x^18 + x^17 + x^14 + x^11 + x^10 + x^7 + x^6 + x^5 + x^4 + x^3 + x + 1."""
    crc = 0
    for byte in data:
        crc = (crc << 8) & 0xFFFFFF ^ _crc_table()[crc >> 16 ^ byte]
    return crc


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 16
        for _ in range(8):
            value = value << 1 ^ (CRC_POLYNOMIAL | 1 << 24 if value >> 23 else 0)
        table.append(value)
    return table


def scrambler(size_bytes: int) -> np.ndarray:
    """SHAKE-128 of "semcast": makes constant payloads look random, and a received block of zeros fail its CRC."""
    return np.frombuffer(hashlib.shake_128(b"semcast").digest(size_bytes), np.uint8)


# Link adaptation


def choose(k: int, snr_db: float, loss: float = TARGET_LOSS) -> Mcs | None:
    """Return the scheme that carries most in k uses of AWGN with at most `loss` of the blocks lost, or None.

    On a fading channel this is too optimistic, unless snr_db is the `capacity.effective_snr_db` of the reception.
    """
    for mcs in reversed(TABLE):
        try:
            if threshold_db(k, mcs, loss) <= snr_db:
                return mcs
        except InputError:  # too few uses
            continue
    return None


@functools.lru_cache(maxsize=1024)
def threshold_db(k: int, mcs: Mcs, loss: float = TARGET_LOSS) -> float:
    """SNR on AWGN at which a block of k uses is lost with probability `loss`, from measured curves (`bler.json`).

    For a k that was not measured it is the normal approximation, plus the largest distance of any measured k from it,
    plus half a dB if every measured k is longer. Each of C code blocks may be lost with probability loss / C.
    """
    curves = measured(mcs)
    if k in curves:
        return crossing_db(curves[k], loss)
    distance = max(crossing_db(points, loss) - bound_db(at, mcs, loss) for at, points in curves.items())
    return bound_db(k, mcs, loss) + distance + (SHORT_MARGIN_DB if k < min(curves) else 0)


def bound_db(k: int, mcs: Mcs, loss: float) -> float:
    """`threshold_db` of the best possible code, by the normal approximation."""
    _, info_bits, uses = plan(k, mcs)
    return required_snr_db(info_bits, uses[-1], loss / len(uses))


def measured(mcs: Mcs) -> dict[int, tuple]:
    """{k: ((snr_db, blocks, lost), ...)} for the curves that were measured down to a loss below 5 %."""
    curves = {}
    for row in _rows():
        if (row["modulation"], row["rate"]) == (mcs.modulation, str(mcs.rate)):
            curves.setdefault(row["k"], []).append((row["snr_db"], row["blocks"], row["lost"]))
    return {k: tuple(points) for k, points in curves.items() if any(lost < 0.05 * blocks for _, blocks, lost in points)}


@functools.cache
def _rows() -> list[dict]:
    return json.loads(CURVES.read_text())["rows"]


def crossing_db(points: Sequence[tuple[float, int, int]], loss: float) -> float:
    """SNR at which a logistic curve through the counts (snr_db, blocks, lost) falls to `loss`.

    The fit is maximum likelihood by Newton's method, with half a lost block added to each point. Real curves become
    steeper towards low losses and a logistic one does not, so below the measured losses it errs on the safe side.
    """
    snr_db, blocks, lost = np.array(points, dtype=float).T
    lost, blocks = lost + 0.5, blocks + 1.0
    design = np.stack([np.ones_like(snr_db), snr_db - snr_db.mean()])  # [2, points]
    weights = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-(weights @ design)))
        step = np.linalg.solve((design * blocks * p * (1 - p)) @ design.T, design @ (lost - blocks * p))
        weights += step / max(1.0, np.abs(step).max() / 2)
    return float(snr_db.mean() + (math.log(loss / (1 - loss)) - weights[0]) / weights[1])
