"""Stage B: the latent diffusion network of Stable Cascade, conditioned on the received Z.

    x      [B, 4, h, w]              noisy Stage A latent, h and w even
    r      [B]                       diffusion time in [0, 1]
    z      [B, 16, hz, wz]           received Z of any size; it is stretched over the latent
    sca    [B] or None               a second scalar condition; None means 0, as the official networks expect
    noise  [B, 16, hz, wz] or None   how much noisier than `sca` each element of Z is; None means everywhere equally
    text   [B, 1, c_text] or None    pooled text vector; None means zeros ("no text")
    -> [B, 4, h, w]                  epsilon, v or x0, depending on the model's `prediction`

Key names and arithmetic are those of Stability-AI/StableCascade, modules/stage_b.py. `StageBConfig` covers both
official sizes and ours. Blocks run channels-last, [B, H, W, C].
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .config import FINE_CHANNELS, PATCH, STAGE_B_LITE, StageBConfig

# Hidden values that a block holds at once in sampling: 128 MiB in bf16. The official networks reach it at 1024x1024.
CHUNK = 1 << 26


class StageB(nn.Module):
    """The UNet. See the module docstring for its arguments."""

    def __init__(self, config: StageBConfig = STAGE_B_LITE):
        super().__init__()
        self.config = config
        self.recompute = False  # in training: do not keep activations inside blocks, recompute them for the gradient
        hidden, levels = config.hidden, len(config.hidden)
        patched = config.latent_channels * PATCH**2

        self.embedding = nn.Sequential(nn.PixelUnshuffle(PATCH), nn.Conv2d(patched, hidden[0], 1), LayerNorm2d())
        self.effnet_mapper = _mapper(config.code_channels, hidden[0])
        if config.noise_map:  # feeds the mapper's hidden layer, where the values of Z meet their reliability
            self.noise_mapper = nn.Conv2d(config.code_channels, 4 * hidden[0], 1, bias=False)
        if config.code_unfold:
            # Stretched over the latent, a position of Z is constant up to interpolation, so no later convolution tells
            # left from right inside it. Unfolded, it can hold a small picture.
            fine = FINE_CHANNELS * config.code_unfold**2
            self.code_unfold = nn.Sequential(
                nn.Conv2d(config.code_channels, fine, 3, padding=1, padding_mode="replicate"),
                nn.PixelShuffle(config.code_unfold),
                nn.Conv2d(FINE_CHANNELS, hidden[0], 1),
            )
        self.pixels_mapper = _mapper(3, hidden[0])
        self.clip_mapper = nn.Linear(config.text_channels, config.cond_channels * config.text_tokens)

        def layers(level: int, count: int, skip: bool) -> nn.ModuleList:
            width, made = hidden[level], nn.ModuleList()
            for j in range(count):
                for kind in config.blocks[level]:
                    if kind == "C":
                        made.append(ResBlock(width, width if skip and j == 0 else 0, config.dropout[level]))
                    elif kind == "T":
                        made.append(TimestepBlock(width, config.time_channels))
                    else:
                        made.append(AttnBlock(width, config.cond_channels, config.heads[level], config.dropout[level]))
            return made

        self.down_downscalers, self.down_blocks = nn.ModuleList(), nn.ModuleList()
        for i in range(levels):
            down = (
                nn.Sequential(LayerNorm2d(), nn.Conv2d(hidden[i - 1], hidden[i], 2, stride=2)) if i else nn.Identity()
            )
            self.down_downscalers.append(down)
            self.down_blocks.append(layers(i, config.down_blocks[i], skip=False))

        self.up_blocks, self.up_upscalers, self.up_repeat_mappers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(levels)):  # index 0 is the deepest level, as in the official files
            self.up_blocks.append(layers(i, config.up_blocks[i], skip=i < levels - 1))
            mappers = (nn.Conv2d(hidden[i], hidden[i], 1) for _ in range(config.up_repeats[i] - 1))
            self.up_repeat_mappers.append(nn.ModuleList(mappers))
            up = nn.Sequential(LayerNorm2d(), nn.ConvTranspose2d(hidden[i], hidden[i - 1], 2, stride=2))
            self.up_upscalers.append(up if i else nn.Identity())

        self.clf = nn.Sequential(LayerNorm2d(), nn.Conv2d(hidden[0], patched, 1), nn.PixelShuffle(PATCH))
        self._initialise()

    def _initialise(self) -> None:
        """Official initialisation: residual branches start small, time conditioning and the output at zero."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        depth = math.sqrt(1 / sum(self.config.down_blocks))
        for module in self.modules():
            if isinstance(module, ResBlock):
                cast(Tensor, module.channelwise[-1].weight).data.mul_(depth)
            elif isinstance(module, TimestepBlock):
                nn.init.zeros_(module.mapper.weight)
                nn.init.zeros_(module.mapper_sca.weight)
        nn.init.zeros_(cast(Tensor, self.clf[1].weight))
        if self.config.noise_map:
            nn.init.zeros_(self.noise_mapper.weight)  # added to trained weights, it at first changes nothing
        nn.init.normal_(cast(Tensor, self.embedding[1].bias))  # keeps the LayerNorm from blowing up a faint input

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return cast(Tensor, self.clf[1].weight).dtype

    def forward(
        self,
        x: Tensor,
        r: Tensor,
        z: Tensor,
        sca: Tensor | None = None,
        text: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        return self.step(x, r, self.map_z(z, noise, (x.shape[-2] // PATCH, x.shape[-1] // PATCH)), sca, text)

    def map_z(self, z: Tensor, noise: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Z's part of the input, [B, *size, hidden[0]]. It does not depend on the time: it is computed once."""
        layers = cast("tuple[nn.Conv2d, nn.GELU, nn.Conv2d, LayerNorm2d]", tuple(self.effnet_mapper))
        expand, activate, project, _ = layers
        dtype, weight = expand.weight.dtype, expand.weight.flatten(1)  # 1x1 convolutions, run channels-last
        fine = None
        if self.config.code_unfold:
            fine = F.interpolate(self.code_unfold(z.to(dtype)).float(), size=size, mode="bilinear", align_corners=False)
        z = _stretch(z.float(), size).to(dtype).permute(0, 2, 3, 1)
        if noise is not None and self.config.noise_map:
            z = torch.cat([z, _stretch(noise.float(), size).to(dtype).permute(0, 2, 3, 1)], dim=-1)
            weight = torch.cat([weight, self.noise_mapper.weight.flatten(1)], dim=1)
        parts = []
        for rows in z.split(_rows(z, expand.out_channels), dim=1):
            hidden = activate(F.linear(rows, weight, expand.bias))
            mapped = F.linear(hidden, project.weight.flatten(1), project.bias)
            parts.append(F.layer_norm(mapped, mapped.shape[-1:], eps=1e-6))
        mapped = torch.cat(parts, dim=1)
        return mapped if fine is None else mapped + fine.to(dtype).permute(0, 2, 3, 1)

    def step(
        self, x: Tensor, r: Tensor, mapped: Tensor, sca: Tensor | None = None, text: Tensor | None = None
    ) -> Tensor:
        """`forward`, given Z's part of the input."""
        config, dtype = self.config, x.dtype
        scalars = (r, torch.zeros_like(r) if sca is None else sca)
        time = torch.cat([time_embedding(t, config.time_channels) for t in scalars], 1)
        time = time.to(dtype)  # [B, 2 time_channels]
        if text is None:
            text = x.new_zeros(len(x), 1, config.text_channels)
        tokens = self.clip_mapper(text.to(dtype)).view(len(x), -1, config.cond_channels)  # [B, text_tokens, cond]
        tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)

        pixels = self.pixels_mapper(x.new_zeros(1, 3, 1, 1))  # an unused input, but its biases have an effect
        x = self.embedding(x).permute(0, 2, 3, 1) + mapped + pixels.permute(0, 2, 3, 1)  # [B, H, W, C] up to the output
        skips = []
        for downscaler, blocks in zip(self.down_downscalers, _lists(self.down_blocks)):
            x = _channels_first(downscaler, x)
            x = self._run(blocks, x, None, time, tokens)
            skips.append(x)
        levels = zip(_lists(self.up_blocks), self.up_upscalers, _lists(self.up_repeat_mappers))
        for i, (blocks, upscaler, mappers) in enumerate(levels):
            skip = skips.pop()
            if i and x.shape != skip.shape:  # where the sides are not multiples of 64
                x = _stretch(x.permute(0, 3, 1, 2).float(), skip.shape[1:3]).to(dtype).permute(0, 2, 3, 1)
            for mapper in (*mappers, None):
                x = self._run(blocks, x, skip if i else None, time, tokens)
                if mapper is not None:
                    x = _channels_first(mapper, x)
            x = _channels_first(upscaler, x)
        return self.clf(x.permute(0, 3, 1, 2))

    def _run(self, blocks: nn.ModuleList, x: Tensor, skip: Tensor | None, time: Tensor, tokens: Tensor) -> Tensor:
        """Run one level once. In every such pass the skip enters the first block."""
        for block in blocks:
            extra = {ResBlock: skip, TimestepBlock: time, AttnBlock: tokens}[type(block)]
            skip = None if isinstance(block, ResBlock) else skip
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, extra, use_reentrant=False)
            else:
                x = block(x, extra)
        return x


class ResBlock(nn.Module):
    """Depthwise 3x3 -> LayerNorm -> (with the skip) Linear -> GELU -> GRN -> Linear -> residual. [B, H, W, C]."""

    def __init__(self, width: int, skip_width: int, dropout: float):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)
        self.channelwise = nn.Sequential(
            nn.Linear(width + skip_width, 4 * width),
            nn.GELU(),
            GlobalResponseNorm(4 * width),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        y = _channels_first(self.depthwise, x)
        y = F.layer_norm(y, y.shape[-1:], eps=1e-6)
        if skip is not None:
            y = torch.cat([y, skip], dim=-1)
        rows = _rows(y, 4 * x.shape[-1])
        if rows >= y.shape[1]:
            return x + self.channelwise(y)
        # Too large at once: go over the rows twice, first for the norm, then for the result.
        layers = cast("tuple[nn.Linear, nn.GELU, GlobalResponseNorm, nn.Dropout, nn.Linear]", tuple(self.channelwise))
        expand, activate, grn, _, project = layers
        parts = y.split(rows, dim=1)
        first, *others = (grn.square_sum(activate(expand(part))) for part in parts)
        square = sum(others, start=first)
        return x + torch.cat([project(grn.respond(activate(expand(part)), square)) for part in parts], dim=1)


class TimestepBlock(nn.Module):
    """x (1 + a) + b, with a and b linear in the embeddings of r and sca."""

    def __init__(self, width: int, time_channels: int):
        super().__init__()
        self.mapper = nn.Linear(time_channels, 2 * width)
        self.mapper_sca = nn.Linear(time_channels, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        r, sca = time.chunk(2, dim=1)
        scale, shift = (self.mapper(r) + self.mapper_sca(sca))[:, None, None].chunk(2, dim=-1)  # [B, 1, 1, C]
        return x * (1 + scale) + shift


class AttnBlock(nn.Module):
    """Multi-head attention from every pixel to all pixels and the text tokens, with a residual."""

    def __init__(self, width: int, cond_channels: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention = nn.Module()
        self.attention.attn = nn.MultiheadAttention(width, heads, batch_first=True)  # only holds the weights
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(cond_channels, width))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        B, H, W, C = x.shape
        attn = cast(nn.MultiheadAttention, self.attention.attn)
        query = F.layer_norm(x, (C,), eps=1e-6).view(B, H * W, C)
        context = torch.cat([query, self.kv_mapper(tokens)], dim=1)  # [B, HW + T, C]
        q_weight, kv_weight = attn.in_proj_weight.split([C, 2 * C])
        q_bias, kv_bias = attn.in_proj_bias.split([C, 2 * C])
        q = F.linear(query, q_weight, q_bias)
        k, v = F.linear(context, kv_weight, kv_bias).chunk(2, dim=-1)
        q, k, v = (t.view(B, -1, self.heads, C // self.heads).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, H, W, C)
        return x + attn.out_proj(y)


class GlobalResponseNorm(nn.Module):
    """x + gamma x n + beta, where n is a channel's L2 norm over the image / its mean over channels (ConvNeXt V2)."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.respond(x, self.square_sum(x))

    def square_sum(self, x: Tensor) -> Tensor:
        """Sum of squares per channel, [B, 1, 1, C] float32.

        On a CPU, vector_norm is eight times slower, since it treats each channel on its own, and x.square() two times.
        """
        # torch sums bf16 in float32 anyway; with dtype=torch.float32 it would first copy x.
        return (x * x).sum(dim=(1, 2), keepdim=True).float()

    def respond(self, x: Tensor, square_sum: Tensor) -> Tensor:
        """The result for (part of) an image, given the sums of squares over all of it."""
        norm = square_sum.clamp_min(1e-20).sqrt()  # the floor keeps the gradient finite
        scale = 1 + self.gamma * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))
        return torch.addcmul(self.beta.to(x.dtype), x, scale.to(x.dtype))


class LayerNorm2d(nn.Module):
    """LayerNorm without affine over the channels of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=1e-6).permute(0, 3, 1, 2)


def time_embedding(r: Tensor, channels: int) -> Tensor:
    """[B] -> [B, channels]: first sines, then cosines of 10000 r at frequencies from 1 down to 1/10000."""
    half = channels // 2
    frequency = torch.exp(torch.arange(half, device=r.device) * (-math.log(10000) / (half - 1)))
    angle = r.float()[:, None] * 10000 * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _mapper(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1), LayerNorm2d())


def _stretch(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _rows(x: Tensor, width: int) -> int:
    """How many rows of [B, H, W, ...] with `width` hidden channels fit in CHUNK; all of them if gradients are on."""
    return x.shape[1] if torch.is_grad_enabled() else max(1, CHUNK // (x.shape[0] * x.shape[2] * width))


def _lists(modules: nn.ModuleList) -> Iterable[nn.ModuleList]:
    """A list of lists; torch has no type for it."""
    return cast("Iterable[nn.ModuleList]", modules)


def _channels_first(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
