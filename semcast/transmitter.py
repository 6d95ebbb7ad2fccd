"""Transmitter: picture -> Z and its header.

image [B, 3, H, W] in [0, 1] -> padded to multiples of 64 -> shrunk by `factor` -> encoder -> Z [B, 16, hz, wz]
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .cascade.encoder import Encoder
from .cascade.model import Cascade
from .device import visiting
from .header import Header, check_sides, encoder_sides, round_factor


@torch.inference_mode()
def transmit(image: Tensor, cascade: Cascade, encoder_id: int, factor: float, seed: int) -> tuple[Tensor, Header]:
    """Encode one picture [1, 3, H, W] in [0, 1] -> (Z [1, 16, hz, wz], its header, whose gain the modem will set).

    Args:
        encoder_id: tells the receiver which encoder made Z (`checkpoint.encoder_id`).
        factor: encoder input side / padded side.
        seed: seed of the receiver's diffusion noise.

    Raises:
        InputError: a side outside 64 .. 8192, or a factor outside 0.5 .. 1.
    """
    height, width = image.shape[-2:]
    check_sides(height, width)
    header = Header(encoder_id, height, width, round_factor(factor), 1.0, seed)
    return encode(pad(image.to(cascade.device), header.padded), cascade.encoder, header.factor), header


def pad(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the last row and column until [B, 3, H, W] has `size`."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image  # without a copy, which matters for large pictures
    return F.pad(image, (0, size[1] - width, 0, size[0] - height), mode="replicate")


def encode(image: Tensor, encoder: Encoder, factor: float) -> Tensor:
    """Encode padded images [B, 3, H, W] -> Z [B, 16, hz, wz], resized by nearest neighbour as in Stable Cascade."""
    height, width = image.shape[-2:]
    with visiting(encoder, image.device):
        return encoder(F.interpolate(image, size=encoder_sides((height, width), factor), mode="nearest"))
