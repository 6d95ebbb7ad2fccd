"""What a coarse codec took from a picture, given back: fine grain and edges, with the base picture at hand.

    forward  base picture, draft [B, 3, H, W] in [0, 1], sides multiples of 4, rate [B, 1, 1, 1]  ->  picture, not clamped

The draft is what a packet behind the base held, `rate` the logarithm to base 2 of its bits per pixel, which tells how
coarse it is. Blocks are Stage A's; nothing looks at a picture as a whole.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import RestorerConfig
from .stage_a import ResBlock


class Restorer(nn.Module):
    """See the module docstring."""

    def __init__(self, config: RestorerConfig):
        super().__init__()
        width = config.width
        self.pictures_in = nn.Conv2d(96, width, kernel_size=1)
        self.rate_in = nn.Conv2d(1, width, kernel_size=1)
        self.blocks = nn.Sequential(*(ResBlock(width) for _ in range(config.blocks)))
        self.out = nn.Conv2d(width, 48, kernel_size=1)
        nn.init.zeros_(self.out.weight)  # a new network changes nothing
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self.out.weight.dtype

    def forward(self, base: Tensor, draft: Tensor, rate: Tensor) -> Tensor:
        seen = F.pixel_unshuffle(torch.cat([base, draft], dim=1) - 0.5, 4)
        x = self.blocks(self.pictures_in(seen) + self.rate_in(rate))
        return draft + F.pixel_shuffle(self.out(x), 4)
