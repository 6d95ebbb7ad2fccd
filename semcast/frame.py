"""The file of one transmission: header and waveform samples, before or after a channel.

It holds complex samples as an antenna sends or receives them, so it is larger than a compressed picture. The layout is
little-endian (PROTOCOL.md): a fixed start with the bytes of the header and its own CRC-32, then x or y as complex64,
and after a channel also h (complex64) and noise_var (float32), each with one value in all or one per symbol. The file
of a digital transmission that has not passed a channel holds the bytes of its packet instead.

Files are not trusted: the size is checked before the file is read, and every field before it is used.
"""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from .channels.base import Received, ones
from .channels.combining import check, combine
from .errors import InputError
from .files import read_bytes, write_bytes
from .header import (
    BASE,
    FACTOR_MAX,
    LADDER_VERSION,
    LAYER_RUNGS,
    LAYOUTS,
    LENGTHS,
    SIDE_MAX,
    VERSION,
    Header,
    pack,
    refuse_impossible,
    stamp,
    unpack,
)
from .modulation import mcs
from .modulation.digital import NO_CHANNEL
from .modulation.ladder import identity
from .modulation.packet import SIZE_MAX

MAGIC = b"SEMC"
HEADS = {  # by version: MAGIC .. payload CRC; its own CRC-32 follows
    version: struct.Struct(f"<4sBBH{length}sIIII") for version, length in zip(LAYOUTS, LENGTHS)
}
CRC = struct.Struct("<I")
MAX_SYMBOLS = sum(Header(0, SIDE_MAX, SIDE_MAX, FACTOR_MAX, 1.0).rung_uses)
MAX_BYTES = HEADS[LADDER_VERSION].size + CRC.size + 20 * MAX_SYMBOLS  # 8 for y, 8 for h, 4 for noise_var
POWER_TOLERANCE, PACKET_POWER_TOLERANCE = 1e-3, 0.5  # the power of QAM symbols is 1 over the constellation
MAGNITUDE_MAX = 1e9  # of y, h and noise_var; far above real values, far below where squares overflow


def write_frame(path: Path, header: Header, signal: np.ndarray | bytes | Received) -> None:
    """Write a frame atomically, as `to_bytes` makes it."""
    write_bytes(path, to_bytes(header, signal))


def to_bytes(header: Header, signal: np.ndarray | bytes | Received) -> bytes:
    """A frame as bytes. `signal` is what was sent, x [1, k] complex64 or a payload, or what was received."""
    if isinstance(signal, bytes):
        kind, counts, payload = 2, (len(signal), 0, 0), signal
    else:
        kind = int(isinstance(signal, Received))
        parts = [part[0] for part in (signal if kind else [signal])]
        counts = ([len(part) for part in parts] + [0, 0])[:3]
        payload = b"".join(part.astype(dtype).tobytes() for part, dtype in zip(parts, ("<c8", "<c8", "<f4")))
    head = HEADS[header.version].pack(MAGIC, header.version, kind, 0, pack(header), *counts, zlib.crc32(payload))
    return head + CRC.pack(zlib.crc32(head)) + payload


def read_frame(path: Path) -> tuple[Header, np.ndarray | bytes | Received]:
    """Read a frame -> (header, x [1, k] or the payload if it has not passed a channel, else Received).

    Raises:
        InputError: the file is not a frame, of another version, truncated or damaged, or has impossible values.
    """
    data = read_bytes(path, MAX_BYTES, "frame")
    return parse(data, str(path))


def read_frames(paths: list[Path]) -> list[tuple[bytes | Received, Header]]:
    """Read the transmissions of one picture; several receptions of a transmission are combined.

    Symbols that have not passed a channel count as received without noise.

    Raises:
        InputError: as `read_frame`, or the frames are of different pictures, or one reception was given twice.
    """
    frames: dict[Header, list[tuple[Path, np.ndarray | bytes | Received]]] = {}
    first: Header | None = None
    for path in paths:
        header, signal = read_frame(path)
        first = first or header
        again = header.rungs == first.rungs and base_of(header) != base_of(first)
        if identity(header) != identity(first) or again:
            raise InputError(f"{paths[0]} and {path} are of different transmissions; combine receptions of one")
        frames.setdefault(header, []).append((path, signal))
    return [(together(found), header) for header, found in frames.items()]


def base_of(header: Header) -> Header:
    """The header without what it says of a packet behind the base, of which others may have been sent."""
    return replace(header, packet_uses=0, scheme=0) if header.packet_uses else header


def together(found: list[tuple[Path, np.ndarray | bytes | Received]]) -> bytes | Received:
    """The receptions of one transmission as one."""
    paths, signals = zip(*found)
    packets = [signal for signal in signals if isinstance(signal, bytes)]
    if packets:
        if len(signals) > 1:
            raise InputError(
                f"{paths[0]} and {paths[1]}: a packet that never met a channel is complete; receive it alone"
            )
        return packets[0]
    receptions = [signal if isinstance(signal, Received) else noiseless(signal) for signal in signals]
    check(receptions, [str(path) for path in paths])
    return combine(receptions)


def parse(data: bytes, name: str) -> tuple[Header, np.ndarray | bytes | Received]:
    """As `read_frame`, from bytes; `name` is for error messages."""
    if data[:4] != MAGIC:
        raise InputError(f"{name} is not a semcast frame (it does not start with {MAGIC.decode()})")
    version = data[4] if len(data) > 4 else VERSION
    if version not in HEADS:
        raise InputError(
            f"{name} is a frame of version {version}; this semcast reads versions {VERSION} to {max(HEADS)}, "
            "so send it again"
        )
    head, start = HEADS[version], HEADS[version].size + CRC.size
    if len(data) < start:
        raise InputError(f"{name} is truncated: {len(data)} bytes do not hold the {start}-byte header; fetch it again")
    if CRC.unpack_from(data, head.size)[0] != zlib.crc32(data[: head.size]):
        raise InputError(f"{name} has a damaged header (CRC mismatch); fetch it again")
    _, _, kind, reserved, packed, k, h_count, noise_count, payload_crc = head.unpack_from(data)
    header = unpack(packed, name)
    coded = range(1, len(mcs.TABLE) + 1)
    schemes = {0: (0,), 1: range(len(mcs.TABLE) + 1), 2: (*coded, NO_CHANNEL)}
    if header.packet_uses:
        schemes = {0: coded, 1: coded}
    rules = [
        ("kind", kind, kind in schemes),
        ("reserved", reserved, reserved == 0),
        ("scheme", header.scheme, header.scheme in schemes.get(kind, range(32))),
    ]
    if all(fine for _, _, fine in rules):
        rules.append(("bytes", k, k in packet_sizes(header)) if kind == 2 else ("symbols", k, k == header.channel_uses))
    rules += [
        (n, count, count in ((1, k) if kind == 1 else (0,)))
        for n, count in (("h_count", h_count), ("noise_count", noise_count))
    ]
    refuse_impossible(rules, name)
    expected = start + (k if kind == 2 else 8 * k) + 8 * h_count + 4 * noise_count
    if len(data) != expected:
        raise InputError(
            f"{name} has {len(data)} bytes where its header says {expected}; it is truncated or has something appended"
        )
    if zlib.crc32(data[start:]) != payload_crc:
        raise InputError(f"{name} has damaged samples (CRC mismatch); fetch it again")
    if kind == 2:
        return check_id(header, data[start:], name), data[start:]
    y = np.frombuffer(data, "<c8", k, start)
    h = np.frombuffer(data, "<c8", h_count, start + 8 * k)
    noise_var = np.frombuffer(data, "<f4", noise_count, start + 8 * k + 8 * h_count)
    lost = np.isposinf(noise_var)  # an erased symbol
    if not (np.isfinite(y).all() and np.isfinite(h).all() and np.isfinite(noise_var[~lost]).all()):
        raise InputError(f"{name} holds NaN or infinite samples")
    if max((np.abs(part).max(initial=0) for part in (y, h, noise_var[~lost])), default=0) > MAGNITUDE_MAX:
        raise InputError(f"{name} holds samples above {MAGNITUDE_MAX:g}; what was sent has unit power")
    if (noise_var < 0).any():
        raise InputError(f"{name} holds a negative noise variance")
    y, h, noise_var = (part[None] for part in (y, h, noise_var))
    if kind:
        return header, Received(y, h, noise_var)
    analog = y[:, : k - header.packet_uses]
    for part, tolerance in ((analog, POWER_TOLERANCE), (y[:, analog.shape[1] :], PACKET_POWER_TOLERANCE)):
        power = np.mean(np.abs(part) ** 2) if part.size else 1.0
        if abs(power - 1) > tolerance:
            raise InputError(f"{name} was not sent with unit power (mean |x|^2 = {power:.4g})")
    return check_id(header, y, name), y


def check_id(header: Header, sent: np.ndarray | bytes, name: str) -> Header:
    """Return the header if `sent` belongs to it. This cannot be checked once a channel has changed the symbols."""
    whole = header.first_rung == BASE[0] and header.last_rung >= BASE[1]
    if not isinstance(sent, bytes):  # the id is that of the whole base, which other runs of rungs do not hold
        sent = sent[:, : sum(header.rung_uses[:LAYER_RUNGS])]
    if whole and stamp(header, sent).transmission_id != header.transmission_id:
        raise InputError(f"{name} holds another transmission than its header says; send it again")
    return header


def packet_sizes(header: Header) -> range:
    """The sizes in bytes that a packet may have."""
    if header.scheme == NO_CHANNEL:
        return range(2, SIZE_MAX + 1)
    try:
        size = mcs.plan(header.channel_uses, mcs.TABLE[header.scheme - 1]).payload_bytes
    except InputError:  # too few symbols for this scheme
        return range(0)
    return range(size, size + 1)


def noiseless(x: np.ndarray) -> Received:
    """Symbols that have not passed a channel, as a reception without noise."""
    return Received(x, ones(x), np.zeros((len(x), 1), np.float32))
