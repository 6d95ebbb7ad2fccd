"""Stage A: the VQGAN of Stable Cascade, between pixels and a latent of a quarter of the side.

    encode  image [B, 3, H, W] in [0, 1]  ->  latent [B, 4, H/4, W/4], about unit variance
    decode  latent                        ->  image, not clamped

Both include `scale_factor` (0.43 in the official networks). Neither quantises, since Stage B works on the continuous
latent (Stability-AI/StableCascade, modules/stage_a.py and train/train_b.py). The codebook exists only because official
files contain it. Key names are the official ones.

Blocks run channels-last, [B, H, W, C], so that LayerNorm and Linear need no copies.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import OFFICIAL_STAGE_A, StageAConfig
from .tiles import in_tiles

CACHE = 1 << 20  # hidden values that an MLP computes at once on a CPU: 2 MiB in bf16, which stay in the cache


class StageA(nn.Module):
    """The autoencoder, without quantisation. See the module docstring."""

    def __init__(self, config: StageAConfig = OFFICIAL_STAGE_A):
        super().__init__()
        self.config = config
        fine, coarse = config.hidden
        self.in_block = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, fine, kernel_size=1))
        self.down_blocks = nn.Sequential(
            *(ResBlock(fine) for _ in range(config.encoder_blocks[0])),
            nn.Conv2d(fine, coarse, kernel_size=4, stride=2, padding=1),
            *(ResBlock(coarse) for _ in range(config.encoder_blocks[1])),
            nn.Sequential(
                nn.Conv2d(coarse, config.latent_channels, kernel_size=1, bias=False),
                nn.BatchNorm2d(config.latent_channels),
            ),
        )
        if config.codebook_size:
            self.vquantizer = nn.Module()  # never run
            self.vquantizer.codebook = nn.Embedding(config.codebook_size, config.latent_channels)
        self.up_blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(config.latent_channels, coarse, kernel_size=1)),
            *(ResBlock(coarse) for _ in range(config.bottleneck_blocks)),
            nn.ConvTranspose2d(coarse, fine, kernel_size=4, stride=2, padding=1),
            *(ResBlock(fine) for _ in range(config.fine_blocks)),
        )
        self.out_block = nn.Sequential(nn.Conv2d(fine, 12, kernel_size=1), nn.PixelShuffle(2))

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return cast(Tensor, self.out_block[0].weight).dtype

    def encode(self, image: Tensor) -> Tensor:
        """image [B, 3, H, W] in [0, 1], sides multiples of 4 -> latent [B, 4, H/4, W/4]."""
        return self.down_blocks(self.in_block(image)) / self.config.scale_factor

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B, 4, h, w] -> image [B, 3, 4h, 4w], about [0, 1] but not clamped.

        Large latents are decoded in tiles, but not in training.
        """
        return self._up(latent) if torch.is_grad_enabled() else in_tiles(self._up, latent, self.config)

    def _up(self, latent: Tensor) -> Tensor:
        count = 1 + self.config.bottleneck_blocks
        blocks, transposed, fine = self.up_blocks[:count], self.up_blocks[count], self.up_blocks[count + 1 :]
        x = latent * self.config.scale_factor
        for block in blocks:
            x = block(x)
        if self.config.replicate_edges:
            x = transposed(_pad(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))[..., 2:-2, 2:-2]
        else:
            x = transposed(x)
        return self.out_block(fine(x))


class ResBlock(nn.Module):
    """Depthwise 3x3, then a two-layer MLP per pixel, each with a scalar scale, shift and gate.

    `gammas` = (scale, shift, gate) of the depthwise half, then of the MLP half. Takes and returns [B, C, H, W].
    """

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(width, width, kernel_size=3, groups=width))
        self.channelwise = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        # The official networks start with closed gates (0); gates of 0.2 train faster.
        self.gammas = nn.Parameter(torch.tensor([0.0, 0.0, 0.2, 0.0, 0.0, 0.2]))

    def forward(self, x: Tensor) -> Tensor:
        # Scale and shift are folded into LayerNorm's affine, gates into the weights: fewer passes over large maps.
        g = self.gammas.to(x.dtype)
        conv = cast(nn.Conv2d, self.depthwise[1])
        expand, activate, project = cast("tuple[nn.Linear, nn.GELU, nn.Linear]", tuple(self.channelwise))
        x = x.permute(0, 2, 3, 1).contiguous()  # [B, H, W, C]; LayerNorm would copy any other order, twice per block
        y = _pad(_norm(x, g[0], g[1])).permute(0, 3, 1, 2)
        x = x + F.conv2d(y, conv.weight * g[2], cast(Tensor, conv.bias) * g[2], groups=conv.groups).permute(0, 2, 3, 1)
        out_weight, out_bias = project.weight * g[5], project.bias * g[5]
        mlp = lambda part: part + F.linear(activate(expand(_norm(part, g[3], g[4]))), out_weight, out_bias)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
            x = mlp(x)
        else:
            parts = x.flatten(0, 2).split(max(1, CACHE // expand.out_features))
            x = torch.cat([mlp(part) for part in parts]).view(x.shape)
        return x.permute(0, 3, 1, 2)  # [B, C, H, W], channels-last in memory


def _pad(x: Tensor) -> Tensor:
    """ReplicationPad2d(1) for [B, H, W, C]. torch's own version returns channels-first memory: three more copies."""
    x = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)
    return torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm over the last dimension, times 1 + scale, plus shift (both scalars)."""
    width = x.shape[-1]
    return F.layer_norm(x, (width,), (1 + scale).repeat(width), shift.repeat(width), eps=1e-6)
