"""The digital link: bytes -> CRC -> 5G LDPC code -> QAM -> any channel -> the same bytes, or None.

payload, zero-padded to the plan's size -> 24-bit CRC -> scrambled -> C code blocks of equal size -> LDPC (TS 38.212,
with rate matching and bit interleaver) -> QAM -> exactly k complex symbols of unit mean power.
Code and modulation are Sionna's, on torch. Its transport block encoder is not used: it rounds sizes and can drop bits
silently.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from ..channels.base import Received
from ..channels.catalogue import find_channel
from ..channels.sionna import keep_random_state, sionna
from ..errors import InputError
from .mcs import BITS, CRC_BITS, Mcs, plan

if TYPE_CHECKING:
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
    from sionna.phy.mapping import Mapper

CRC_POLYNOMIAL = 0x864CFB  # CRC-24A
ROUNDS = (8, 3, 3, 3, 3)  # iterations of belief propagation, 20 in all; after each round, decoded payloads are done


def encode(payloads: Sequence[bytes], k: int, mcs: Mcs) -> np.ndarray:
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
    blocks = [mapper(code(info_bits, n, mcs.modulation)[0](info[:, i])) for i, n in enumerate(uses)]
    return torch.cat(blocks, dim=1).numpy()


def decode(received: Received, mcs: Mcs, sizes: Sequence[int] | None = None) -> list[bytes | None]:
    """Decode received symbols -> each payload, or None if its CRC fails.

    Args:
        sizes: sizes of the payloads in bytes, known as side information; without them the padding is returned too.
    """
    y, h, noise_var = (torch.from_numpy(np.array(part)) for part in received)
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
