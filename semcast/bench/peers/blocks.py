"""What the U-Net is made of, and the four ways to tell it something: time, maps (SPADE), a vector (CAN), itself (attention).

Tensors: x [B, width, h, w]; e [B, embed], what is known of the whole picture; maps [B, m, h, w], of every place.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Norm, depthwise 3x3, scale and shift by e, then two 1x1 convolutions; starts as the identity."""

    def __init__(self, width: int, embed: int, maps: int, aware: bool, attentive: bool):
        super().__init__()
        self.norm = MapNorm(width, maps) if maps else group_norm(width)
        self.depthwise = AwareDepthwise(width, embed) if aware else nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.modulation = nn.Linear(embed, 2 * width)
        self.grow, self.shrink = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)
        self.attention = FeatureAttention(width) if attentive else nn.Identity()
        for layer in (self.modulation, self.shrink):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, e: Tensor, maps: Tensor | None) -> Tensor:
        h = self.norm(x, maps) if isinstance(self.norm, MapNorm) else self.norm(x)
        h = self.depthwise(h, e) if isinstance(self.depthwise, AwareDepthwise) else self.depthwise(h)
        scale, shift = self.modulation(e)[:, :, None, None].chunk(2, dim=1)  # [B, width, 1, 1] each
        return x + self.attention(self.shrink(F.gelu(self.grow(h * (1 + scale) + shift))))


class MapNorm(nn.Module):
    """SPADE: scale and shift of every place come from maps. Source: Park et al. 2019, section 3."""

    HIDDEN = 32  # 128 in the paper

    def __init__(self, width: int, maps: int):
        super().__init__()
        self.norm = group_norm(width, affine=False)
        self.shared = nn.Conv2d(maps, self.HIDDEN, 3, padding=1)
        self.out = nn.Conv2d(self.HIDDEN, 2 * width, 3, padding=1)

    def forward(self, x: Tensor, maps: Tensor | None) -> Tensor:
        scale, shift = self.out(F.silu(self.shared(maps))).chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class AwareDepthwise(nn.Module):
    """A depthwise 3x3 convolution whose kernels are W + W(e): a condition-aware network (Cai et al. 2024, equation 2)."""

    def __init__(self, width: int, embed: int):
        super().__init__()
        self.static = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.change = nn.Linear(embed, 9 * width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def kernels(self, e: Tensor) -> Tensor:
        """[B, embed] -> [B, width, 3, 3]."""
        return self.static.weight[:, 0] + self.change(e).view(len(e), -1, 3, 3)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        kernels = self.kernels(e).flatten(0, 1)[:, None]  # [B width, 1, 3, 3]
        y = F.conv2d(x.reshape(1, -1, *x.shape[-2:]), kernels, padding=1, groups=len(kernels))
        assert self.static.bias is not None
        return y.view_as(x) + self.static.bias[:, None, None]


class AwareProjection(nn.Module):
    """A 1x1 convolution of the same kind: the network's last layer."""

    def __init__(self, width: int, outside: int, embed: int):
        super().__init__()
        self.static = nn.Conv2d(width, outside, 1)
        self.change = nn.Linear(embed, outside * width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        kernels = self.change(e).view(len(e), -1, x.shape[1])  # [B, outside, width]
        return self.static(x) + torch.einsum("bow,bwhv->bohv", kernels, x)


class FeatureAttention(nn.Module):
    """Weights for channels, then for places: squeeze and excitation (Hu 2018), spatial attention (Woo 2018)."""

    def __init__(self, width: int):
        super().__init__()
        self.channels = nn.Sequential(nn.Linear(width, width // 8), nn.SiLU(), nn.Linear(width // 8, width))
        self.places = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channels(x.mean(dim=(2, 3))).sigmoid()[:, :, None, None]
        seen = torch.stack([x.mean(dim=1), x.amax(dim=1)], dim=1)  # [B, 2, h, w]
        return x * self.places(seen).sigmoid()


class SelfAttention(nn.Module):
    """All places look at one another, with one head; starts as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.ask, self.out = group_norm(width), nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.ask(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)  # [B, places, width] each
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.out(seen)


def group_norm(width: int, affine: bool = True) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, width // 16), width, affine=affine)


def waves(t: Tensor, count: int) -> Tensor:
    """Times [B] in [0, 1000] -> [B, count] sines and cosines of periods from 2 pi to 20,000 pi."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(count // 2, device=t.device) / (count // 2))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
