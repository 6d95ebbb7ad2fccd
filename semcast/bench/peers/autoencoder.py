"""Latents of Stage A to the rivals' latents and back: one class for the clean one (stride 8) and the two that are sent.

Pictures go through semcast's Stage A first (`pictures.py`), so that all rivals have as good a decoder as semcast has, and
learn in its small latent. Behind it is a convolutional network without norms: residual blocks at every scale, half the
sides from scale to scale. There is no KL term.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXELS, STAGE_A_STRIDE = 4, 4  # channels of Stage A's latent, and pixels a side of its cells


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    widths: tuple[int, ...]  # channels at strides 8, 16, 32
    channels: int  # of the latent
    depth: int = 1  # residual blocks of each scale, in the encoder and in the decoder
    through_channel: bool = False  # trained with noise on the latent, whose power is then 1 per picture

    @property
    def stride(self) -> int:
        return STAGE_A_STRIDE * 2 ** len(self.widths)


class Autoencoder(nn.Module):
    """Stage A's latent y [B, 4, H/4, W/4] -> z [B, channels, H/stride, W/stride] -> y. H, W are multiples of stride."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        widths, channels = config.widths, config.channels
        blocks = lambda width: [Residual(width) for _ in range(config.depth)]
        steps = list(zip(widths, widths[1:]))
        encoder: list[nn.Module] = [nn.PixelUnshuffle(2), conv(4 * PIXELS, widths[0]), *blocks(widths[0])]
        for wide, narrow in steps:
            encoder += [conv(wide, narrow, stride=2), *blocks(narrow)]
        decoder: list[nn.Module] = [conv(channels, widths[-1]), *blocks(widths[-1])]
        for wide, narrow in reversed(steps):
            decoder += [conv(narrow, 4 * wide), nn.PixelShuffle(2), *blocks(wide)]
        self.encoder = nn.Sequential(*encoder, conv(widths[-1], channels))
        self.decoder = nn.Sequential(*decoder, conv(widths[0], 4 * PIXELS), nn.PixelShuffle(2))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def encode(self, y: Tensor) -> Tensor:
        """The latent: of variance 1 over the training pictures or, if it is to be sent, of mean square 1 per picture."""
        z = self.encoder(y).float()
        if self.config.through_channel:
            return z * z.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12).rsqrt()
        return (z - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z * self.std[:, None, None] + self.mean[:, None, None]).float()


class Residual(nn.Module):
    """Starts as the identity: its last layer is zero."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def conv(inside: int, outside: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inside, outside, 3, stride, padding=1)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
