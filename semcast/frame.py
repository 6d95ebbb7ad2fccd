"""The file of one transmission: header and waveform samples, before or after a channel.

It holds complex samples, not coded bits, so it is larger than a compressed picture: it stands for what an antenna
sends or sees. Layout, little-endian (PROTOCOL.md): a fixed header with its own CRC-32, then x or y as complex64, then,
once received, h (complex64) and noise_var (float32), each one value or one a symbol.

A file is hostile until read: its size is checked before it is read, every field before it is used.
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .channel import Received
from .errors import InputError
from .images import write_bytes
from .transmitter import FACTOR_MAX, FACTOR_MIN, FACTOR_UNIT, SIDE_MAX, SIDE_MIN, Header

MAGIC = b"SEMC"
VERSION = 1
HEADER = struct.Struct("<4sBBHHHBxeIIIII")  # MAGIC .. payload CRC; its own CRC-32 follows
CRC = struct.Struct("<I")
START = HEADER.size + CRC.size
MAX_SYMBOLS = 16 * (SIDE_MAX // 32) ** 2 // 2
MAX_BYTES = START + 20 * MAX_SYMBOLS  # 8 for y, 8 for h, 4 for noise_var
POWER_TOLERANCE = 1e-3


def write_frame(path: Path, header: Header, signal: Tensor | Received) -> None:
    """signal: x [1, k] complex64 that was sent, or what a channel made of it. Atomic."""
    is_received = isinstance(signal, Received)
    parts = [signal.y, signal.h, signal.noise_var] if is_received else [signal]
    y, h, noise_var = ([p[0].cpu().numpy() for p in parts] + [np.empty(0), np.empty(0)])[:3]
    payload = y.astype("<c8").tobytes() + h.astype("<c8").tobytes() + noise_var.astype("<f4").tobytes()
    head = HEADER.pack(
        MAGIC,
        VERSION,
        is_received,
        header.code_id,
        header.height,
        header.width,
        round(header.factor * FACTOR_UNIT),
        header.gain,
        header.seed,
        len(y),
        len(h),
        len(noise_var),
        zlib.crc32(payload),
    )
    write_bytes(path, head + CRC.pack(zlib.crc32(head)) + payload)


def read_frame(path: Path) -> tuple[Header, Tensor | Received]:
    """File -> (header, x [1, k] if it never met a channel, else Received).

    Raises:
        InputError: one line saying what is wrong: not a frame, another version, truncated, damaged, impossible values.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise InputError(f"{path} has {size_bytes} bytes; no frame is larger than {MAX_BYTES}")
        if not path.is_file():  # a device or a pipe may never end
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not a file'}; name a frame")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return parse(data, str(path))


def parse(data: bytes, name: str) -> tuple[Header, Tensor | Received]:
    """Bytes of a frame, as `read_frame`; `name` is for error messages."""
    if data[:4] != MAGIC:
        raise InputError(f"{name} is not a semcast frame (it does not start with {MAGIC.decode()})")
    if len(data) < START:
        raise InputError(f"{name} is truncated: {len(data)} bytes do not hold the {START}-byte header; fetch it again")
    (_, version, kind, code_id, height, width, factor, gain, seed, k, h_count, noise_count, payload_crc) = HEADER.unpack_from(data)
    if version != VERSION:
        raise InputError(f"{name} is a frame of version {version}; this semcast reads version {VERSION}")
    if CRC.unpack_from(data, HEADER.size)[0] != zlib.crc32(data[: HEADER.size]):
        raise InputError(f"{name} has a damaged header (CRC mismatch); fetch it again")
    factor /= FACTOR_UNIT
    header = Header(code_id, height, width, factor, gain, seed)
    rules = [
        ("kind", kind, kind in (0, 1)),
        ("height", height, SIDE_MIN <= height <= SIDE_MAX),
        ("width", width, SIDE_MIN <= width <= SIDE_MAX),
        ("factor", factor, FACTOR_MIN <= factor <= FACTOR_MAX),
        ("gain", gain, math.isfinite(gain) and gain > 0),
    ]
    rules += [("symbols", k, k == header.channel_uses)] if all(fine for _, _, fine in rules) else []
    rules += [(n, count, count in ((1, k) if kind else (0,))) for n, count in (("h_count", h_count), ("noise_count", noise_count))]
    if bad := [f"{field} = {value}" for field, value, fine in rules if not fine]:
        raise InputError(f"{name} has an impossible header: {', '.join(bad)}")
    expected = START + 8 * k + 8 * h_count + 4 * noise_count
    if len(data) != expected:
        raise InputError(f"{name} has {len(data)} bytes where its header says {expected}; it is truncated or has something appended")
    if zlib.crc32(data[START:]) != payload_crc:
        raise InputError(f"{name} has damaged samples (CRC mismatch); fetch it again")
    y = np.frombuffer(data, "<c8", k, START)
    h = np.frombuffer(data, "<c8", h_count, START + 8 * k)
    noise_var = np.frombuffer(data, "<f4", noise_count, START + 8 * k + 8 * h_count)
    lost = np.isposinf(noise_var)  # an erased symbol
    if not (np.isfinite(y).all() and np.isfinite(h).all() and np.isfinite(noise_var[~lost]).all()):
        raise InputError(f"{name} holds NaN or infinite samples")
    if (noise_var < 0).any():
        raise InputError(f"{name} holds a negative noise variance")
    y, h, noise_var = (torch.from_numpy(part.copy())[None] for part in (y, h, noise_var))
    if kind:
        return header, Received(y, h, noise_var)
    if abs(y.abs().square().mean().item() - 1) > POWER_TOLERANCE:
        raise InputError(f"{name} was not sent with unit power (mean |x|^2 = {y.abs().square().mean().item():.4g})")
    return header, y


def noiseless(x: Tensor) -> Received:
    """A frame that never met a channel, as a receiver sees it."""
    return Received(x, torch.ones_like(x[:, :1]), torch.zeros(len(x), 1))
