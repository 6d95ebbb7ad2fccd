"""Side information: what a receiver needs beside the symbols, every bit of it counted, and the arithmetic of shapes.

PROTOCOL.md explains each field.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from .cascade.config import LATENT_CHANNELS, STRIDE
from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

VERSION = 3  # of the protocol and the frame file
PAD_MULTIPLE = 64  # sides of what Stage B and Stage A work on
SIDE_MIN, SIDE_MAX = 64, 8192  # pixels
FACTOR_UNIT = 128  # `factor` travels as a whole number of 1/128
FACTOR_MIN, FACTOR_MAX = 0.5, 1.0
SEED_MAX = 2**32 - 1
FIELDS = struct.Struct("<HHHBBeI")  # from encoder_id to seed, as the frame file writes them

HEADER_BITS = {
    "version": 8,
    "encoder_id": 16,
    "height": 16,
    "width": 16,
    "factor": 8,
    "scheme": 8,
    "gain": 16,
    "seed": 32,
    "transmission_id": 32,
    "header_crc": 32,
}
SIDE_BITS = sum(HEADER_BITS.values())


@dataclass(frozen=True)
class Header:
    """Side information of one transmission."""

    encoder_id: int  # which encoder made Z (`checkpoint.encoder_id`)
    height: int  # pixels of the picture
    width: int
    factor: float  # encoder input side / padded side
    gain: float  # x = gain Z, a float16
    seed: int  # of the receiver's diffusion noise
    scheme: int = 0  # 0: analog symbols; else how a packet's bytes are coded and modulated (`modulation.digital`)
    transmission_id: int = 0  # CRC-32 of the above and of what is sent (`stamp`); only equal ones may be combined

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the picture the networks work on, multiples of 64."""
        height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in (self.height, self.width))
        return height, width

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of Z: [16, hz, wz]."""
        height, width = encoder_sides(self.padded, self.factor)
        return LATENT_CHANNELS, height // STRIDE, width // STRIDE

    @property
    def mode(self) -> str:
        return "digital" if self.scheme else "analog"

    @property
    def channel_uses(self) -> int:
        """Complex symbols of the payload, k = 16 hz wz / 2."""
        channels, h, w = self.latent_shape
        return channels * h * w // 2


class Transmission(NamedTuple):
    """What one transmission consists of."""

    header: Header
    content: "np.ndarray | bytes"  # analog: x [1, k] complex, mean |x|^2 = 1; digital: the payload of a packet


def bandwidth_ratio(channel_uses: int, height: int, width: int) -> float:
    """k / (3 H W): complex channel uses over the picture's numbers."""
    return channel_uses / (3 * height * width)


def encoder_sides(sides: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width of the encoder's input: shrunk, rounded down to multiples of 32, at least 32."""
    height, width = (max(STRIDE, int(factor * side) // STRIDE * STRIDE) for side in sides)
    return height, width


def round_factor(factor: float) -> float:
    """To what the header can say.

    Raises:
        InputError: it lies outside 0.5 .. 1.
    """
    if not FACTOR_MIN <= factor <= FACTOR_MAX:
        raise InputError(f"factor is {factor}; it must lie between {FACTOR_MIN} and {FACTOR_MAX}")
    return round(factor * FACTOR_UNIT) / FACTOR_UNIT


def check_sides(height: int, width: int) -> None:
    if not (SIDE_MIN <= height <= SIDE_MAX and SIDE_MIN <= width <= SIDE_MAX):
        raise InputError(
            f"picture is {width}x{height} pixels; both sides must lie between {SIDE_MIN} and {SIDE_MAX}, so resize it"
        )


def stamp(header: Header, content: "np.ndarray | bytes") -> Header:
    """The header with the id of what is sent: symbols x [1, k], or the payload of a packet."""
    data = content if isinstance(content, bytes) else content.astype("<c8").tobytes()
    h = header
    fields = FIELDS.pack(h.encoder_id, h.height, h.width, round(h.factor * FACTOR_UNIT), h.scheme, h.gain, h.seed)
    return replace(header, transmission_id=zlib.crc32(data, zlib.crc32(fields)))
