"""Transmitter: picture -> semantic code Z -> unit-power complex symbols, and the header that goes with them.

image [1, 3, H, W] in [0, 1] -> padded to multiples of 64 -> shrunk by `factor` -> encoder -> Z [1, 16, hz, wz]
Z flattened: the first half are the real parts of x, the second half the imaginary parts; k = 16 hz wz / 2.
"""

import struct
import zlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .cascade.encoder import LATENT_CHANNELS, STRIDE, Encoder
from .cascade.model import visiting
from .errors import InputError

PAD_MULTIPLE = 64  # sides of what Stage B and Stage A work on
SIDE_MIN, SIDE_MAX = 64, 8192  # pixels
FACTOR_UNIT = 128  # `factor` travels as a whole number of 1/128
FACTOR_MIN, FACTOR_MAX = 0.5, 1.0
FIELDS = struct.Struct("<HHHBBeI")  # of the header as `frame` writes them, from code_id to seed

HEADER_BITS = {  # every bit a receiver needs beside the symbols; PROTOCOL.md explains them
    "version": 8,
    "code_id": 16,
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

    code_id: int  # which encoder made Z (`checkpoint.code_id`)
    height: int  # pixels of the picture
    width: int
    factor: float  # encoder input side / padded side
    gain: float  # x = gain Z, a float16
    seed: int  # of the receiver's diffusion noise
    scheme: int = 0  # 0: analog symbols; else the bytes of a packet (`packet`)
    transmission_id: int = 0  # CRC-32 of the fields above and what is sent (`stamp`): what may be combined

    @property
    def padded(self) -> tuple[int, int]:
        """Sides of the picture the networks work on, multiples of 64."""
        return tuple(-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in (self.height, self.width))

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """[16, hz, wz]."""
        return (LATENT_CHANNELS, *(side // STRIDE for side in encoder_sides(self.padded, self.factor)))

    @property
    def channel_uses(self) -> int:
        """Complex symbols, k = 16 hz wz / 2."""
        channels, h, w = self.code_shape
        return channels * h * w // 2

    @property
    def bandwidth_ratio(self) -> float:
        """k / (3 H W)."""
        return self.channel_uses / (3 * self.height * self.width)


def transmit(image: Tensor, encoder: Encoder, code_id: int, factor: float, seed: int) -> tuple[Tensor, Header]:
    """One picture [1, 3, H, W] in [0, 1] -> (x [1, k] complex64 with mean |x|^2 = 1, its header).

    Raises:
        InputError: a side outside 64 .. 8192, or a factor outside 0.5 .. 1.
    """
    height, width = image.shape[-2:]
    check_sides(height, width)
    if not FACTOR_MIN <= factor <= FACTOR_MAX:
        raise InputError(f"factor is {factor}; it must lie between {FACTOR_MIN} and {FACTOR_MAX}")
    factor = round(factor * FACTOR_UNIT) / FACTOR_UNIT
    header = Header(code_id, height, width, factor, 1.0, seed)
    x, gain = modulate(encode(pad(image, header.padded), encoder, factor))
    return x, stamp(Header(code_id, height, width, factor, gain.half().item(), seed), x)


def stamp(header: Header, sent: Tensor | bytes) -> Header:
    """The header with the id of what is sent: symbols x [1, k], or the payload of a packet."""
    data = sent if isinstance(sent, bytes) else sent.cpu().numpy().astype("<c8").tobytes()
    h = header
    fields = FIELDS.pack(h.code_id, h.height, h.width, round(h.factor * FACTOR_UNIT), h.scheme, h.gain, h.seed)
    return replace(header, transmission_id=zlib.crc32(data, zlib.crc32(fields)))


def check_sides(height: int, width: int) -> None:
    if not (SIDE_MIN <= height <= SIDE_MAX and SIDE_MIN <= width <= SIDE_MAX):
        raise InputError(f"picture is {width}x{height} pixels; both sides must lie between {SIDE_MIN} and {SIDE_MAX}, so resize it")


def pad(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the last row and column until [B, 3, H, W] has `size`."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image  # a large picture need not be copied
    return F.pad(image, (0, size[1] - width, 0, size[0] - height), mode="replicate")


def encoder_sides(sides: tuple[int, int], factor: float) -> tuple[int, int]:
    """Sides of the encoder's input: shrunk, rounded down to multiples of 32, at least 32."""
    return tuple(max(STRIDE, int(factor * side) // STRIDE * STRIDE) for side in sides)


def encode(image: Tensor, encoder: Encoder, factor: float) -> Tensor:
    """Padded image [B, 3, H, W] -> Z [B, 16, hz, wz]. Nearest neighbour, as Stable Cascade was trained."""
    with visiting(encoder, image.device):
        return encoder(F.interpolate(image, size=encoder_sides(image.shape[-2:], factor), mode="nearest"))


def modulate(z: Tensor) -> tuple[Tensor, Tensor]:
    """Z [B, 16, hz, wz] -> (x [B, k] complex with mean |x|^2 = 1 in every row, gain [B, 1] with x = gain Z).

    Power is per image, never per batch: a shared scale would let one image borrow power from another.
    """
    real, imag = z.float().flatten(1).chunk(2, dim=1)  # [B, k] each
    gain = (real.square() + imag.square()).mean(dim=1, keepdim=True).clamp_min(1e-8).rsqrt()
    return torch.complex(real, imag) * gain, gain


def demodulate(x: Tensor, gain: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Inverse of `modulate`: x [B, k], gain [B, 1] -> Z [B, 16, hz, wz]."""
    return (torch.cat([x.real, x.imag], dim=1) / gain).view(-1, *shape)
