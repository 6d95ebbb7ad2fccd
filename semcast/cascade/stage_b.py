"""Stage B: the latent diffusion network of Stable Cascade, conditioned on the received semantic code.

    x    [B, 4, h, w]      noisy Stage A latent, h and w even
    r    [B]               diffusion time in [0, 1]
    code [B, 16, hz, wz]   received Z, of any size: it is stretched over the latent
    sca  [B] or None       a second scalar condition; None means 0, as the official networks expect
    noise [B, 16, hz, wz] or None   how much noisier than `sca` each number of the code is; None means no more than that
    text [B, 1, c_text] or None   pooled text vector; None means zeros ("no text")
    -> [B, 4, h, w]        epsilon or x0, as the model's `prediction` says

Key names and arithmetic of Stability-AI/StableCascade, modules/stage_b.py; `StageBConfig` can express both official
sizes and ours. Blocks run channels-last, [B, H, W, C].
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, kw_only=True)
class StageBConfig:
    """Defaults: the official lite network, 699,471,248 parameters. Tuples run from the finest level to the deepest."""

    hidden: tuple = (320, 576, 1152, 1152)
    heads: tuple = (0, 9, 18, 18)  # used by levels with attention only
    blocks: tuple = ("CT", "CT", "CTA", "CTA")  # C: convolution block, T: time, A: attention
    down_blocks: tuple = (2, 4, 14, 4)
    up_blocks: tuple = (2, 4, 14, 4)
    up_repeats: tuple = (2, 2, 2, 2)  # how often the same weights run on the way up
    time_channels: int = 64
    cond_channels: int = 1280  # width of a text token
    text_channels: int = 1280
    text_tokens: int = 4
    dropout: tuple = (0.0, 0.0, 0.1, 0.1)
    latent_channels: int = 4
    code_channels: int = 16
    noise_map: bool = False  # whether `noise` has weights; the official networks have none
    code_unfold: int = 0  # each cell of the code is also unfolded into so many pixels a side; the official networks do not


STAGE_B_LITE = StageBConfig()
STAGE_B_BIG = StageBConfig(
    hidden=(320, 640, 1280, 1280),
    heads=(0, 0, 20, 20),
    down_blocks=(2, 6, 28, 6),
    up_blocks=(2, 6, 28, 6),
    up_repeats=(2, 2, 3, 3),
)
PATCH = 2
FINE_CHANNELS = 16  # of the unfolded code
CHUNK = 1 << 26  # hidden numbers of a block held at once when sampling: 128 MiB in bf16, 1024x1024 with the official sizes


class StageB(nn.Module):
    """The UNet. See the module docstring for its arguments."""

    def __init__(self, config: StageBConfig = STAGE_B_LITE):
        super().__init__()
        self.config = config
        self.recompute = False  # in training: keep no activations inside blocks, compute them again for the gradient
        hidden, levels = config.hidden, len(config.hidden)
        patched = config.latent_channels * PATCH**2

        self.embedding = nn.Sequential(nn.PixelUnshuffle(PATCH), nn.Conv2d(patched, hidden[0], 1), LayerNorm2d())
        self.effnet_mapper = _mapper(config.code_channels, hidden[0])
        if config.noise_map:  # into the mapper's hidden layer: what a number says and how far it can be trusted meet there
            self.noise_mapper = nn.Conv2d(config.code_channels, 4 * hidden[0], 1, bias=False)
        if config.code_unfold:
            # Stretched over the latent, a cell says the same wherever one stands in it, up to interpolation: no convolution
            # behind it can tell left from right inside the cell. Unfolded, it can hold a small picture.
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
            down = nn.Sequential(LayerNorm2d(), nn.Conv2d(hidden[i - 1], hidden[i], 2, stride=2)) if i else nn.Identity()
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
        """Residual branches start small, time conditioning and output at zero (the official initialisation)."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        depth = math.sqrt(1 / sum(self.config.down_blocks))
        for module in self.modules():
            if isinstance(module, ResBlock):
                module.channelwise[-1].weight.data.mul_(depth)
            elif isinstance(module, TimestepBlock):
                nn.init.zeros_(module.mapper.weight)
                nn.init.zeros_(module.mapper_sca.weight)
        nn.init.zeros_(self.clf[1].weight)
        if self.config.noise_map:
            nn.init.zeros_(self.noise_mapper.weight)  # added to trained weights, it changes nothing until it has learnt
        nn.init.normal_(self.embedding[1].bias)  # so that the LayerNorm behind it does not blow up a faint input

    def forward(
        self,
        x: Tensor,
        r: Tensor,
        code: Tensor,
        sca: Tensor | None = None,
        text: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        return self.step(x, r, self.map_code(code, noise, (x.shape[-2] // PATCH, x.shape[-1] // PATCH)), sca, text)

    def map_code(self, code: Tensor, noise: Tensor | None, size: tuple[int, int]) -> Tensor:
        """The code's part of the input, [B, *size, hidden[0]]. It does not depend on the time: `step` takes it ready-made."""
        expand, activate, project, _ = self.effnet_mapper
        dtype, weight = expand.weight.dtype, expand.weight.flatten(1)  # 1x1 convolutions, run channels-last
        if self.config.code_unfold:
            fine = F.interpolate(self.code_unfold(code.to(dtype)).float(), size=size, mode="bilinear", align_corners=False)
        code = _stretch(code.float(), size).to(dtype).permute(0, 2, 3, 1)
        if noise is not None and self.config.noise_map:
            code = torch.cat([code, _stretch(noise.float(), size).to(dtype).permute(0, 2, 3, 1)], dim=-1)
            weight = torch.cat([weight, self.noise_mapper.weight.flatten(1)], dim=1)
        parts = []
        for rows in code.split(_rows(code, len(expand.bias)), dim=1):
            hidden = activate(F.linear(rows, weight, expand.bias))
            mapped = F.linear(hidden, project.weight.flatten(1), project.bias)
            parts.append(F.layer_norm(mapped, mapped.shape[-1:], eps=1e-6))
        mapped = torch.cat(parts, dim=1)
        return mapped + fine.to(dtype).permute(0, 2, 3, 1) if self.config.code_unfold else mapped

    def step(self, x: Tensor, r: Tensor, mapped: Tensor, sca: Tensor | None = None, text: Tensor | None = None) -> Tensor:
        """`forward`, given the code's part of the input."""
        config, dtype = self.config, x.dtype
        time = torch.cat([time_embedding(t, config.time_channels) for t in (r, torch.zeros_like(r) if sca is None else sca)], 1)
        time = time.to(dtype)  # [B, 2 time_channels]
        if text is None:
            text = x.new_zeros(len(x), 1, config.text_channels)
        tokens = self.clip_mapper(text.to(dtype)).view(len(x), -1, config.cond_channels)  # [B, text_tokens, cond]
        tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)

        pixels = self.pixels_mapper(x.new_zeros(1, 3, 1, 1))  # unused input, but its biases are part of the weights
        x = self.embedding(x).permute(0, 2, 3, 1) + mapped + pixels.permute(0, 2, 3, 1)  # [B, H, W, C] from here to the output
        skips = []
        for downscaler, blocks in zip(self.down_downscalers, self.down_blocks):
            x = _channels_first(downscaler, x)
            x = self._run(blocks, x, None, time, tokens)
            skips.append(x)
        for i, (blocks, upscaler, mappers) in enumerate(zip(self.up_blocks, self.up_upscalers, self.up_repeat_mappers)):
            skip = skips.pop()
            if i and x.shape != skip.shape:  # sides that are no multiple of 64
                x = _stretch(x.permute(0, 3, 1, 2).float(), skip.shape[1:3]).to(dtype).permute(0, 2, 3, 1)
            for mapper in (*mappers, None):
                x = self._run(blocks, x, skip if i else None, time, tokens)
                if mapper is not None:
                    x = _channels_first(mapper, x)
            x = _channels_first(upscaler, x)
        return self.clf(x.permute(0, 3, 1, 2))

    def _run(self, blocks: nn.ModuleList, x: Tensor, skip: Tensor | None, time: Tensor, tokens: Tensor) -> Tensor:
        """One pass through a level. The skip enters its first block, on every pass."""
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
        # Too large at once: twice over the rows, first for the norm, then for the result.
        expand, activate, respond, _, project = self.channelwise
        square = sum(respond.square_sum(activate(expand(part))) for part in y.split(rows, dim=1))
        return x + torch.cat([project(respond.respond(activate(expand(part)), square)) for part in y.split(rows, dim=1)], dim=1)


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
    """Multi-head attention of every pixel over all pixels and the text tokens, with a residual."""

    def __init__(self, width: int, cond_channels: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention = nn.Module()
        self.attention.attn = nn.MultiheadAttention(width, heads, batch_first=True)  # holds the weights, is never run
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(cond_channels, width))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        B, H, W, C = x.shape
        attn = self.attention.attn
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
    """x + gamma x n + beta, n = a channel's L2 norm over the image by its mean over channels (ConvNeXt V2)."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.respond(x, self.square_sum(x))

    def square_sum(self, x: Tensor) -> Tensor:
        """[B, 1, 1, C] float32. On a CPU vector_norm, which walks each channel alone, is eight times slower; x.square() twice."""
        return (x * x).sum(dim=(1, 2), keepdim=True).float()  # summed in float32 in any case; asked for it, torch copies x first

    def respond(self, x: Tensor, square_sum: Tensor) -> Tensor:
        norm = square_sum.clamp_min(1e-20).sqrt()  # the floor keeps the gradient finite
        scale = 1 + self.gamma * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))
        return torch.addcmul(self.beta.to(x.dtype), x, scale.to(x.dtype))


class LayerNorm2d(nn.Module):
    """LayerNorm without affine over the channels of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=1e-6).permute(0, 3, 1, 2)


def time_embedding(r: Tensor, channels: int) -> Tensor:
    """[B] -> [B, channels]: sines, then cosines, of 10000 r at frequencies from 1 down to 1/10000."""
    half = channels // 2
    frequency = torch.exp(torch.arange(half, device=r.device) * (-math.log(10000) / (half - 1)))
    angle = r.float()[:, None] * 10000 * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _mapper(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1), LayerNorm2d())


def _stretch(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _rows(x: Tensor, width: int) -> int:
    """Rows of [B, H, W, ...] whose `width` hidden channels fit in CHUNK numbers; all of them where gradients are wanted."""
    return x.shape[1] if torch.is_grad_enabled() else max(1, CHUNK // (x.shape[0] * x.shape[2] * width))


def _channels_first(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
