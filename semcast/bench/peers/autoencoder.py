"""Pictures to latents and back: one class for the clean latent (stride 8) and the two that are sent (16 and 32).

A convolutional network without norms: a residual block at every scale, half the sides from scale to scale. The latent is
standardised by mean and deviation of its channels over the training pictures; there is no KL term.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    widths: tuple[int, ...]  # channels at strides 2, 4, 8 ...
    channels: int  # of the latent
    through_channel: bool = False  # trained with noise on the latent, whose power is then 1 per picture

    @property
    def stride(self) -> int:
        return 2 ** len(self.widths)


class Autoencoder(nn.Module):
    """image [B, 3, H, W] in [0, 1] -> z [B, channels, H/stride, W/stride] -> image. H and W are multiples of stride."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        widths, channels = config.widths, config.channels
        steps = list(zip(widths, widths[1:]))
        encoder: list[nn.Module] = [nn.PixelUnshuffle(2), conv(12, widths[0]), Residual(widths[0])]
        for wide, narrow in steps:
            encoder += [conv(wide, narrow, stride=2), Residual(narrow)]
        decoder: list[nn.Module] = [conv(channels, widths[-1]), Residual(widths[-1])]
        for wide, narrow in reversed(steps):
            decoder += [conv(narrow, 4 * wide), nn.PixelShuffle(2), Residual(wide)]
        self.encoder = nn.Sequential(*encoder, conv(widths[-1], channels))
        self.decoder = nn.Sequential(*decoder, conv(widths[0], 12), nn.PixelShuffle(2))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def encode(self, image: Tensor) -> Tensor:
        """The latent: of variance 1 over the training pictures or, if it is to be sent, of mean square 1 per picture."""
        z = self.encoder(2 * image - 1).float()
        if self.config.through_channel:
            return z * z.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12).rsqrt()
        return (z - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, z: Tensor) -> Tensor:
        """-> [B, 3, H, W], unclamped, so that training sees errors beyond black and white too."""
        return self.decoder(z * self.std[:, None, None] + self.mean[:, None, None]).float() * 0.5 + 0.5


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
