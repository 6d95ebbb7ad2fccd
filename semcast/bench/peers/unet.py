"""The denoiser of all four rivals: one U-Net over latents, whose settings say what it is told."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import AwareProjection, Block, SelfAttention, waves

EMBED = 128  # numbers that describe the whole picture: time and, for CASC, what was received


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    channels: int  # of the latent
    patch: int = 1  # cells a side of the latent that the network takes as one
    widths: tuple[int, ...] = (128, 192, 256)  # channels at strides 1, 2, 4 of the patches
    depth: int = 2  # blocks of each scale, down and up
    maps: int = 0  # GESCO: maps of every place, by SPADE
    received: bool = False  # CASC: the received latent beside x, and kernels that depend on it and on its noise
    attentive: bool = False  # DIFFSC: attention over channels and places in every block


class UNet(nn.Module):
    """(x [B, channels, h, w], t [B] in [0, 1000], what it is told) -> eps [B, channels, h, w]. Any h and w."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config, widths = config, config.widths
        block = lambda width: Block(width, EMBED, config.maps, config.received, config.attentive)
        blocks = lambda width: nn.ModuleList(block(width) for _ in range(config.depth))
        told = 2 * config.channels + 1 if config.received else 0
        self.embed = nn.Sequential(nn.Linear(EMBED + told, EMBED), nn.SiLU(), nn.Linear(EMBED, EMBED), nn.SiLU())
        cell = config.channels * config.patch**2
        self.stem = nn.Conv2d(cell * (1 + config.received), widths[0], 3, padding=1)
        steps = list(zip(widths, widths[1:]))
        self.down = nn.ModuleList(blocks(width) for width in widths)
        self.shrinks = nn.ModuleList(
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * wide, narrow, 1)) for wide, narrow in steps
        )
        self.attention = SelfAttention(widths[-1])
        self.up = nn.ModuleList(blocks(width) for width in widths)
        self.grows = nn.ModuleList(
            nn.Sequential(nn.Conv2d(narrow, 4 * wide, 1), nn.PixelShuffle(2)) for wide, narrow in steps
        )
        self.merges = nn.ModuleList(nn.Conv2d(2 * wide, wide, 1) for wide, _ in steps)
        self.out = AwareProjection(widths[0], cell, EMBED) if config.received else nn.Conv2d(widths[0], cell, 1)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        maps: Tensor | None = None,
        received: Tensor | None = None,
        noise_var: Tensor | None = None,
    ) -> Tensor:
        """The noise in x.

        Args:
            maps: GESCO only, [B, maps, h, w] in [0, 1].
            received: CASC only, the received latent (MMSE estimate), [B, channels, h, w].
            noise_var: CASC only, noise of the received latent, linear, [B].
        """
        height, width = x.shape[-2:]
        patch = self.config.patch
        multiple = patch * 2 ** (len(self.config.widths) - 1)
        edges = (0, -width % multiple, 0, -height % multiple)
        pad = lambda z: F.pad(z, edges, mode="replicate")
        known = [waves(t, EMBED)]
        if received is not None and noise_var is not None:
            known += [received.mean(dim=(2, 3)), received.std(dim=(2, 3), correction=0), noise_var.log()[:, None] / 4]
            x = torch.cat([x, received], dim=1)
        e = self.embed(torch.cat(known, dim=1))
        scales = [None if maps is None else F.avg_pool2d(pad(maps), patch * 2**i) for i in range(len(self.down))]
        h, kept = self.stem(F.pixel_unshuffle(pad(x), patch)), []
        for i, blocks in enumerate(self.down):
            h = self.shrinks[i - 1](h) if i else h
            for block in blocks:  # type: ignore[union-attr]
                h = block(h, e, scales[i])
            kept.append(h)
        h = self.attention(h)
        for i in reversed(range(len(self.up))):
            if i + 1 < len(self.up):
                h = self.merges[i](torch.cat([kept[i], self.grows[i](h)], dim=1))
            for block in self.up[i]:  # type: ignore[union-attr]
                h = block(h, e, scales[i])
        h = self.out(h, e) if isinstance(self.out, AwareProjection) else self.out(h)
        return F.pixel_shuffle(h, patch)[..., :height, :width].float()
