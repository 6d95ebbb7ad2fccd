"""Side information: what a receiver needs beside the symbols, every bit of it counted, and the arithmetic of shapes.

What is sent is a stream of 24 rungs, strongest first, of which a transmission holds any run: 8 of Z, the base, and 8 each
of two enhancement layers. Every prefix of the stream is a picture. Instead of the layers, a packet may follow the base
(mode mixed). On the air a header is 12 bytes for the whole base, 13 for another run of rungs, and 14 for a base and a
packet (`pack`, `unpack`); PROTOCOL.md explains each field.
"""

import binascii
import math
import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from .cascade.config import LATENT_CHANNELS, STRIDE
from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

# Of the protocol and the frame file: the whole base, another run of rungs, or the base and a packet.
VERSION, LADDER_VERSION, MIXED_VERSION = 4, 5, 6
LAYER_RUNGS = LATENT_CHANNELS // 2  # of one layer: two channels of it form the symbols of a rung
ENHANCEMENT_STRIDES = 16, 8  # pixels of the padded picture per position of the layers above the base
RUNGS = LAYER_RUNGS * (1 + len(ENHANCEMENT_STRIDES))
BASE = 1, LAYER_RUNGS  # first and last rung of the base
PAD_MULTIPLE = 64  # sides of what Stage B and Stage A work on
SIDE_MIN, SIDE_MAX = 64, 8192  # pixels
FACTOR_UNIT = 128  # `factor` travels as a whole number of 1/128
FACTOR_MIN, FACTOR_MAX = 0.5, 1.0
SEED_MAX = 2**32 - 1
PACKET_UNIT, PACKET_USES_MAX = 32, 32 * 0xFFFF  # complex symbols of a packet behind the base: a multiple, and the most

HEADER_BITS = {  # in the order of the bits on the air
    "version": 4,
    "encoder_id": 16,
    "height": 13,  # less 1
    "width": 13,  # less 1
    "factor": 7,  # in 1/128, less 64
    "scheme": 5,
    "gain": 15,  # a float16 without its sign
    "transmission_id": 7,
    "header_crc": 16,
}
LADDER_BITS = {  # of `LADDER_VERSION`, which is always analog
    "version": 4,
    "encoder_id": 16,
    "height": 13,
    "width": 13,
    "factor": 7,
    "first_rung": 5,  # less 1
    "last_rung": 5,  # less 1
    "gain": 15,
    "transmission_id": 10,
    "header_crc": 16,
}
MIXED_BITS = {  # of `MIXED_VERSION`; `scheme` is that of the packet
    "version": 4,
    "encoder_id": 16,
    "height": 13,
    "width": 13,
    "factor": 7,
    "scheme": 5,
    "gain": 15,
    "packet_uses": 16,  # in units of 32
    "transmission_id": 7,
    "header_crc": 16,
}
LAYOUTS = {VERSION: HEADER_BITS, LADDER_VERSION: LADDER_BITS, MIXED_VERSION: MIXED_BITS}
SIDE_BITS = sum(HEADER_BITS.values())  # of a whole base
HEADER_BYTES, LADDER_BYTES, MIXED_BYTES = LENGTHS = [sum(bits.values()) // 8 for bits in LAYOUTS.values()]
CRC_BYTES = HEADER_BITS["header_crc"] // 8


@dataclass(frozen=True)
class Header:
    """Side information of one transmission."""

    encoder_id: int  # which encoder made Z (`checkpoint.encoder_id`)
    height: int  # pixels of the picture
    width: int
    factor: float  # encoder input side / padded side
    gain: float  # x = gain Z, a positive float16
    scheme: int = 0  # 0: analog symbols; else how a packet's bytes are coded and modulated (`modulation.digital`)
    transmission_id: int = 0  # 7 or 10 bits that depend on the above and on what is sent (`stamp`)
    first_rung: int = BASE[0]
    last_rung: int = BASE[1]
    packet_uses: int = 0  # symbols of a packet behind the base, a multiple of 32; then `scheme` is its own

    @property
    def rungs(self) -> tuple[int, int]:
        """The first and the last rung of this transmission, from 1."""
        return self.first_rung, self.last_rung

    @property
    def short_id(self) -> int:
        """The low bits of the id, in which all transmissions of a picture agree."""
        return self.transmission_id % 2 ** HEADER_BITS["transmission_id"]

    @property
    def layout(self) -> dict[str, int]:
        """Names and lengths of the header's fields on the air."""
        return LAYOUTS[self.version]

    @property
    def version(self) -> int:
        if self.packet_uses:
            return MIXED_VERSION
        return VERSION if self.rungs == BASE else LADDER_VERSION

    @property
    def side_bits(self) -> int:
        return sum(self.layout.values())

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
    def layer_shapes(self) -> list[tuple[int, int, int]]:
        """Of Z and of the layers above it: [16, h, w] each."""
        height, width = self.padded
        return [self.latent_shape, *((LATENT_CHANNELS, height // s, width // s) for s in ENHANCEMENT_STRIDES)]

    @property
    def rung_uses(self) -> list[int]:
        """Complex symbols of each of the 24 rungs."""
        return [h * w for _, h, w in self.layer_shapes for _ in range(LAYER_RUNGS)]

    @property
    def mode(self) -> str:
        return "mixed" if self.packet_uses else "digital" if self.scheme else "analog"

    @property
    def channel_uses(self) -> int:
        """Complex symbols of the payload, k; for the whole base 16 hz wz / 2."""
        return sum(self.rung_uses[self.first_rung - 1 : self.last_rung]) + self.packet_uses


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
    """The header with the id of what is sent: the whole base x [1, k] whatever the rungs, or the payload of a packet.

    The id is the low bits of the CRC-32 of the packed header of the whole base, its id 0, and of what is sent. So all
    transmissions of a picture's rungs, and of its base with a packet, have the same low 7 bits.
    """
    data = content if isinstance(content, bytes) else content.astype("<c8").tobytes()
    base = replace(header, transmission_id=0, first_rung=BASE[0], last_rung=BASE[1], packet_uses=0)
    base = replace(base, scheme=0) if header.packet_uses else base
    crc = zlib.crc32(data, zlib.crc32(pack(base)))
    return replace(header, transmission_id=crc % 2 ** header.layout["transmission_id"])


def pack(header: Header) -> bytes:
    """The 12 to 14 bytes of a header on the air: the fields as in `Header.layout`, highest bits first, then a CRC-16."""
    layout = header.layout
    fields = {
        "version": header.version,
        "encoder_id": header.encoder_id,
        "height": header.height - 1,
        "width": header.width - 1,
        "factor": round((header.factor - FACTOR_MIN) * FACTOR_UNIT),
        "scheme": header.scheme,
        "first_rung": header.first_rung - 1,
        "last_rung": header.last_rung - 1,
        "gain": int.from_bytes(struct.pack(">e", header.gain), "big"),
        "packet_uses": header.packet_uses // PACKET_UNIT,
        "transmission_id": header.transmission_id,
    }
    return pack_bits(fields, layout)


def unpack(data: bytes, name: str = "what arrived") -> Header:
    """Invert `pack`; `name` is for error messages.

    Raises:
        InputError: the 12 to 14 bytes are damaged, of another version, or say something impossible.
    """
    layout = dict(zip(LENGTHS, LAYOUTS.values())).get(len(data), HEADER_BITS)
    fields = unpack_bits(data, layout)
    if fields is None:
        raise InputError(f"{name} has a damaged header (CRC mismatch); fetch it again")
    header = Header(
        encoder_id=fields["encoder_id"],
        height=fields["height"] + 1,
        width=fields["width"] + 1,
        factor=fields["factor"] / FACTOR_UNIT + FACTOR_MIN,
        gain=struct.unpack(">e", fields["gain"].to_bytes(2, "big"))[0],
        scheme=fields.get("scheme", 0),
        transmission_id=fields["transmission_id"],
        first_rung=fields.get("first_rung", BASE[0] - 1) + 1,
        last_rung=fields.get("last_rung", BASE[1] - 1) + 1,
        packet_uses=PACKET_UNIT * fields.get("packet_uses", 0),
    )
    rules = [
        ("version", fields["version"], LAYOUTS.get(fields["version"]) is layout),
        ("height", header.height, header.height >= SIDE_MIN),
        ("width", header.width, header.width >= SIDE_MIN),
        ("factor", header.factor, header.factor <= FACTOR_MAX),
        ("gain", header.gain, math.isfinite(header.gain) and header.gain > 0),
        ("last_rung", header.last_rung, header.first_rung <= header.last_rung <= RUNGS),
        ("first_rung", header.first_rung, layout is not LADDER_BITS or header.rungs != BASE),
        ("packet_uses", header.packet_uses, layout is not MIXED_BITS or header.packet_uses > 0),
    ]
    refuse_impossible(rules, name)
    return header


def pack_bits(fields: dict[str, int], layout: dict[str, int]) -> bytes:
    """Fields as bytes, in the order of the layout {name: bits}, highest bits first; its last entry is the CRC-16."""
    number = 0
    for name, bits in [*layout.items()][:-1]:
        assert 0 <= fields[name] < 2**bits, f"{name} does not fit its bits: {fields}"
        number = number << bits | fields[name]
    data = number.to_bytes(sum(layout.values()) // 8 - CRC_BYTES, "big")
    return data + crc16(data)


def unpack_bits(data: bytes, layout: dict[str, int]) -> dict[str, int] | None:
    """Invert `pack_bits`; None if there are more or fewer bytes, or damaged ones."""
    if 8 * len(data) != sum(layout.values()) or crc16(data[:-CRC_BYTES]) != data[-CRC_BYTES:]:
        return None
    number, fields = int.from_bytes(data, "big"), {}
    for field, bits in reversed(layout.items()):
        number, fields[field] = divmod(number, 2**bits)
    return fields


def refuse_impossible(rules: list[tuple[str, float, bool]], name: str, what: str = "header") -> None:
    """Raise InputError if one of (field, its value, whether it is possible) is not."""
    if bad := [f"{field} = {value}" for field, value, fine in rules if not fine]:
        raise InputError(f"{name} has an impossible {what}: {', '.join(bad)}")


def crc16(data: bytes) -> bytes:
    """CRC-16/CCITT, x^16 + x^12 + x^5 + 1, from 0. It finds every burst of up to 16 bits and up to 3 single ones."""
    return binascii.crc_hqx(data, 0).to_bytes(CRC_BYTES, "big")
