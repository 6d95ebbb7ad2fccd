"""The enhancement network: two layers of latents above Z, of what the base picture lacks, and their decoder.

    encode  image [B, 3, H, W] in [0, 1], sides multiples of 64  ->  layers [B, 16, H/16, W/16] and [B, 16, H/8, W/8]
    decode  base picture, and of each layer its estimate and noise [B, 32, h, w]  ->  image, not clamped

Channels p and p + 8 of a layer form one symbol, and `transmitter.unit_power` gives every such pair unit power over a
picture: a transmission may end after any pair. The decoder was trained on all these ends, on noise, fading and erasures.

Blocks are Stage A's. Nothing in the decoder looks at a picture as a whole, so that large ones can be decoded in tiles.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ENHANCED_CHANNELS, EnhancementConfig
from .stage_a import ResBlock


class Enhancement(nn.Module):
    """The network. Names end in the stride of the maps that they work on. See the module docstring."""

    def __init__(self, config: EnhancementConfig):
        super().__init__()
        self.config = config
        width_4, width_8, width_16 = config.encoder
        self.enc_in = nn.Conv2d(48, width_4, kernel_size=1)
        self.enc_4 = blocks(width_4, config.encoder_blocks[0])
        self.enc_down_8 = nn.Conv2d(width_4, width_8, kernel_size=2, stride=2)
        self.enc_8 = blocks(width_8, config.encoder_blocks[1])
        self.enc_down_16 = nn.Conv2d(width_8, width_16, kernel_size=2, stride=2)
        self.enc_16 = blocks(width_16, config.encoder_blocks[2])
        self.enc_out_16 = nn.Conv2d(width_16, ENHANCED_CHANNELS, kernel_size=1)
        self.enc_out_8 = nn.Conv2d(width_8, ENHANCED_CHANNELS, kernel_size=1)
        width_2, width_4, width_8, width_16 = config.decoder
        self.base_in = nn.Conv2d(48, width_4, kernel_size=1)
        self.base_4 = blocks(width_4, config.base_blocks[0])
        self.base_down_8 = nn.Conv2d(width_4, width_8, kernel_size=2, stride=2)
        self.base_8 = blocks(width_8, config.base_blocks[1])
        self.base_down_16 = nn.Conv2d(width_8, width_16, kernel_size=2, stride=2)
        self.z_16 = nn.Conv2d(2 * ENHANCED_CHANNELS, width_16, kernel_size=1)
        self.z_8 = nn.Conv2d(2 * ENHANCED_CHANNELS, width_8, kernel_size=1)
        self.dec_16 = blocks(width_16, config.decoder_blocks[3])
        self.up_8 = nn.ConvTranspose2d(width_16, width_8, kernel_size=2, stride=2)
        self.dec_8 = blocks(width_8, config.decoder_blocks[2])
        self.up_4 = nn.ConvTranspose2d(width_8, width_4, kernel_size=2, stride=2)
        self.dec_4 = blocks(width_4, config.decoder_blocks[1])
        self.up_2 = nn.ConvTranspose2d(width_4, width_2, kernel_size=4, stride=2, padding=1)
        self.dec_2 = blocks(width_2, config.decoder_blocks[0])
        self.out = nn.Conv2d(width_2, 12, kernel_size=1)
        nn.init.zeros_(self.out.weight)  # a new network changes nothing
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self.out.weight.dtype

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See the module docstring; the layer at stride 16 comes first."""
        x = self.enc_8(self.enc_down_8(self.enc_4(self.enc_in(F.pixel_unshuffle(image - 0.5, 4)))))
        return self.enc_out_16(self.enc_16(self.enc_down_16(x))), self.enc_out_8(x)

    def decode(self, base: Tensor, known_16: Tensor, known_8: Tensor) -> Tensor:
        """base [B, 3, H, W]; known: estimate and noise of a layer, joined over channels."""
        skip_4 = self.base_4(self.base_in(F.pixel_unshuffle(base - 0.5, 4)))
        skip_8 = self.base_8(self.base_down_8(skip_4))
        x = self.dec_16(self.base_down_16(skip_8) + self.z_16(known_16))
        x = self.dec_8(self.up_8(x) + skip_8 + self.z_8(known_8))
        x = self.dec_4(self.up_4(x) + skip_4)
        x = self.up_2(F.pad(x, (1, 1, 1, 1), mode="replicate"))[..., 2:-2, 2:-2]
        return base + F.pixel_shuffle(self.out(self.dec_2(x)), 2)


def blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(width) for _ in range(count)))
