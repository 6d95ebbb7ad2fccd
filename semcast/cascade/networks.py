"""The networks as ONNX graphs, from a model's settings and its weights.

The same arithmetic as encoder.py, stage_b.py and stage_a.py, arranged for ONNX Runtime on a CPU: BatchNorm, gates and
GlobalResponseNorm are folded into weights. `tests/test_engines.py` compares both. A graph takes one picture of any size.
"""

import math
from collections.abc import Mapping

import numpy as np

from .config import (
    FINE_CHANNELS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LATENT_CHANNELS,
    PATCH,
    EncoderConfig,
    StageAConfig,
    StageBConfig,
)
from .graph import Graph

BATCH_NORM_EPS = 1e-3  # of EfficientNet-V2; 1e-5 in its last layer, torch's default
FINEST_PARTS = 4  # in which the hidden channels of the finest level, the largest maps, are made
TIME_MAX = 10000  # longest period of the time embedding, over its shortest

Tensors = Mapping[str, np.ndarray]


# Encoder, [1, C, H, W]


def encoder(config: EncoderConfig, tensors: Tensors, where: str) -> Graph:
    """image [1, 3, H, W] in [0, 1], sides multiples of 32 -> z [1, 16, H/32, W/32]."""
    g = Graph("encoder", tensors, where)
    shape = (1, 3, 1, 1)
    x = g.op("Sub", "image", g.constant(np.reshape(IMAGENET_MEAN, shape)))
    x = g.op("Div", x, g.constant(np.reshape(IMAGENET_STD, shape)))
    width = config.stages[0][4]
    x = silu(g, conv_norm(g, x, "backbone.0", 3, width, 3, 2))
    for i, (kind, expand, kernel, stride, width, out, repeats) in enumerate(config.stages, 1):
        for j in range(repeats):
            y = BLOCKS[kind](g, x, f"backbone.{i}.{j}.block", width, out, expand, kernel, stride)
            x = g.op("Add", x, y) if stride == 1 and width == out else y
            width, stride = out, 1
    x = silu(g, conv_norm(g, x, f"backbone.{len(config.stages) + 1}", width, config.last_channels, 1, 1))
    kernel = g.take("mapper.0.weight", LATENT_CHANNELS, config.last_channels, 1, 1)
    mean, variance = (g.take(f"mapper.1.running_{name}", LATENT_CHANNELS) for name in ("mean", "var"))
    scale = 1 / np.sqrt(variance + 1e-5)
    g.op("Conv", x, g.constant(kernel * scale[:, None, None, None]), g.constant(-mean * scale))
    return g.finish({"image": (1, 3, "height", "width")}, "z", (1, LATENT_CHANNELS, "hz", "wz"))


def conv_norm(g: Graph, x: str, key: str, width: int, out: int, kernel: int, stride: int, groups: int = 1) -> str:
    """A convolution without bias and its BatchNorm, as one convolution."""
    weight = g.take(f"{key}.0.weight", out, width // groups, kernel, kernel)
    gamma, beta, mean, variance = (
        g.take(f"{key}.1.{name}", out) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
    folded = g.constant(weight * scale[:, None, None, None]), g.constant(beta - mean * scale)
    pads = [(kernel - 1) // 2] * 4
    return g.op("Conv", x, *folded, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups)


def fused(g: Graph, x: str, key: str, width: int, out: int, expand: int, kernel: int, stride: int) -> str:
    if expand == 1:
        return silu(g, conv_norm(g, x, f"{key}.0", width, out, kernel, stride))
    hidden = adjusted(width * expand)
    x = silu(g, conv_norm(g, x, f"{key}.0", width, hidden, kernel, stride))
    return conv_norm(g, x, f"{key}.1", hidden, out, 1, 1)


def mbconv(g: Graph, x: str, key: str, width: int, out: int, expand: int, kernel: int, stride: int) -> str:
    hidden, squeezed, i = adjusted(width * expand), max(1, width // 4), 0
    if hidden != width:
        x, i = silu(g, conv_norm(g, x, f"{key}.0", width, hidden, 1, 1)), 1
    x = silu(g, conv_norm(g, x, f"{key}.{i}", hidden, hidden, kernel, stride, groups=hidden))
    s = g.op("GlobalAveragePool", x)
    s = silu(g, conv(g, s, f"{key}.{i + 1}.fc1", hidden, squeezed))
    x = g.op("Mul", x, g.op("Sigmoid", conv(g, s, f"{key}.{i + 1}.fc2", squeezed, hidden)))
    return conv_norm(g, x, f"{key}.{i + 2}", hidden, out, 1, 1)


BLOCKS = {"fused": fused, "mbconv": mbconv}  # by the kind in `EncoderConfig.stages`


def adjusted(channels: int) -> int:
    """A multiple of 8, as torchvision rounds widths."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def silu(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Sigmoid", x))


def conv(g: Graph, x: str, key: str, width: int, out: int, bias: bool = True) -> str:
    """A 1x1 convolution of [1, C, H, W]."""
    parts = [g.constant(g.take(f"{key}.weight", out, width, 1, 1))]
    return g.op("Conv", x, *parts, *([g.constant(g.take(f"{key}.bias", out))] if bias else []))


# Stage B, [1, H, W, C] inside


def stage_b_map(config: StageBConfig, tensors: Tensors, where: str) -> Graph:
    """z, noise [1, 16, hz, wz] and size [2] = (h / 2, w / 2) -> mapped [1, h / 2, w / 2, hidden]."""
    g = Graph("stage_b_map", tensors, where)
    hidden, channels = config.hidden[0], config.code_channels
    stretch = lambda x: last(g, resize(g, x, "size", channels, "align_corners"))
    weight = g.take("effnet_mapper.0.weight", 4 * hidden, channels, 1, 1)[:, :, 0, 0]
    x = stretch("z")
    if config.noise_map:
        x = g.op("Concat", x, stretch("noise"), axis=-1)
        noise_weight = g.take("noise_mapper.weight", 4 * hidden, channels, 1, 1)[:, :, 0, 0]
        weight = np.concatenate([weight, noise_weight], axis=1)
    bias, total = g.take("effnet_mapper.0.bias", 4 * hidden), g.constant(g.take("effnet_mapper.2.bias", hidden))
    outside = np.split(g.take("effnet_mapper.2.weight", hidden, 4 * hidden, 1, 1)[:, :, 0, 0], FINEST_PARTS, axis=1)
    for w, b, out in zip(np.split(weight, FINEST_PARTS), np.split(bias, FINEST_PARTS), outside):
        total = g.op("Add", g.op("MatMul", g.op("Gelu", affine(g, x, w, b)), g.constant(out.T)), total)
    x = total
    x = norm(g, x, hidden)
    if unfold := config.code_unfold:
        fine = FINE_CHANNELS * unfold**2
        pads = g.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
        kernel = g.take("code_unfold.0.weight", fine, channels, 3, 3)
        y = g.op(
            "Conv",
            g.op("Pad", "z", pads, mode="edge"),
            g.constant(kernel),
            g.constant(g.take("code_unfold.0.bias", fine)),
        )
        y = g.op("DepthToSpace", y, blocksize=unfold, mode="CRD")
        y = conv(g, y, "code_unfold.2", FINE_CHANNELS, hidden)
        g.op("Add", x, last(g, resize(g, y, "size", hidden, "half_pixel")))
    code = (1, channels, "hz", "wz")
    inputs = {"z": code} | ({"noise": code} if config.noise_map else {}) | {"size": (2,)}
    return g.finish(inputs, "mapped", (1, "rows", "columns", hidden), whole=("size",))


def stage_b_step(config: StageBConfig, tensors: Tensors, where: str) -> Graph:
    """x [1, 4, h, w], time r [1], mapped, sca [1] -> output [1, 4, h, w]."""
    g = Graph("stage_b_step", tensors, where)
    hidden, levels = config.hidden, len(config.hidden)
    patched = config.latent_channels * PATCH**2
    up_levels = list(reversed(range(levels)))
    blocks = {("down", i): layers(config, i, config.down_blocks[i], f"down_blocks.{i}") for i in range(levels)}
    blocks |= {("up", i): layers(config, i, config.up_blocks[i], f"up_blocks.{j}") for j, i in enumerate(up_levels)}
    times = time_blocks(g, config, [(key, i) for (_, i), made in blocks.items() for kind, key in made if kind == "T"])
    tokens = text_tokens(g, config)

    def run(x: str, side: str, i: int, skip: str | None) -> str:
        for kind, key in blocks[side, i]:
            if kind == "C":
                x, skip = res_block(g, x, skip, key, hidden[i], 1 if i else FINEST_PARTS), None
            elif kind == "T":
                scale, shift = times[key]
                x = g.op("Add", g.op("Mul", x, scale), shift)
            else:
                x = attention(g, x, tokens, key, hidden[i], config.heads[i], config.cond_channels)
        return x

    weight = g.take("embedding.1.weight", hidden[0], patched, 1, 1)
    weight = weight.reshape(hidden[0], config.latent_channels, PATCH**2).swapaxes(1, 2)  # SpaceToDepth's order
    x = g.op("SpaceToDepth", "x", blocksize=PATCH)
    x = g.op("MatMul", last(g, x), g.constant(weight.reshape(hidden[0], patched).T))
    x = norm(g, g.op("Add", x, g.constant(g.take("embedding.1.bias", hidden[0]))), hidden[0])
    x = g.op("Add", g.op("Add", x, g.constant(no_pixels(g, hidden[0]))), "mapped")
    skips = []
    for i in range(levels):
        if i:
            key, width = f"down_downscalers.{i}.1", hidden[i - 1]
            kernel = g.constant(g.take(f"{key}.weight", hidden[i], width, 2, 2))
            bias = g.constant(g.take(f"{key}.bias", hidden[i]))
            x = last(g, g.op("Conv", first(g, norm(g, x, width)), kernel, bias, strides=[2, 2]))
        x = run(x, "down", i, None)
        skips.append(x)
    for j, i in enumerate(up_levels):
        skip = skips.pop()
        repeats = config.up_repeats[i]
        for k in range(repeats):
            x = run(x, "up", i, skip if j else None)
            if k + 1 < repeats:
                x = last(g, conv(g, first(g, x), f"up_repeat_mappers.{j}.{k}", hidden[i], hidden[i]))
        if i:
            key, out = f"up_upscalers.{j}.1", hidden[i - 1]
            kernel = g.constant(g.take(f"{key}.weight", hidden[i], out, 2, 2))
            bias = g.constant(g.take(f"{key}.bias", out))
            x = last(g, g.op("ConvTranspose", first(g, norm(g, x, hidden[i])), kernel, bias, strides=[2, 2]))
    x = conv(g, first(g, norm(g, x, hidden[0])), "clf.1", hidden[0], patched)
    g.op("DepthToSpace", x, blocksize=PATCH, mode="CRD")
    latent = (1, config.latent_channels, "h", "w")
    inputs = {"x": latent, "r": (1,), "mapped": (1, "rows", "columns", hidden[0]), "sca": (1,)}
    return g.finish(inputs, "output", latent)


def layers(config: StageBConfig, level: int, count: int, key: str) -> list[tuple[str, str]]:
    """(kind, key) of the blocks of one level."""
    return [(kind, f"{key}.{n}") for n, kind in enumerate(config.blocks[level] * count)]


def time_blocks(g: Graph, config: StageBConfig, places: list[tuple[str, int]]) -> dict[str, tuple[str, str]]:
    """All TimestepBlocks at once: (1 + a, b), each [1, C], by the block's key."""
    widths = [config.hidden[i] for _, i in places for _ in range(2)]
    total = g.constant(
        np.concatenate([np.r_[np.ones(config.hidden[i]), np.zeros(config.hidden[i])] for _, i in places])
    )
    for name, value in (("mapper", "r"), ("mapper_sca", "sca")):
        shape = [(2 * config.hidden[i], config.time_channels) for _, i in places]
        weight = np.concatenate([g.take(f"{key}.{name}.weight", *s) for (key, _), s in zip(places, shape)])
        bias = np.concatenate([g.take(f"{key}.{name}.bias", s[0]) for (key, _), s in zip(places, shape)])
        embedded = time_embedding(g, value, config.time_channels)
        total = g.op("Add", total, g.op("Add", g.op("MatMul", embedded, g.constant(weight.T)), g.constant(bias)))
    parts = g.split("Split", len(widths), total, g.constant(np.array(widths)), axis=-1)
    return {key: (scale, shift) for (key, _), scale, shift in zip(places, parts[::2], parts[1::2])}


def time_embedding(g: Graph, r: str, channels: int) -> str:
    half = channels // 2
    frequency = np.exp(np.arange(half) * (-math.log(TIME_MAX) / (half - 1)))
    angle = g.op("Mul", g.op("Mul", r, g.constant(np.float32(TIME_MAX))), g.constant(frequency))
    sides = [g.op(name, angle) for name in ("Sin", "Cos")]
    return g.op("Reshape", g.op("Concat", *sides, axis=0), g.constant(np.array([1, channels])))


def text_tokens(g: Graph, config: StageBConfig) -> np.ndarray:
    """The tokens of a text vector of zeros, [text_tokens, cond_channels]."""
    size = config.cond_channels * config.text_tokens
    g.take("clip_mapper.weight", size, config.text_channels)
    return plain_norm(g.take("clip_mapper.bias", size).reshape(config.text_tokens, config.cond_channels))


def no_pixels(g: Graph, hidden: int) -> np.ndarray:
    """What `pixels_mapper` makes of its unused input, a pixel of zeros: [hidden]."""
    g.take("pixels_mapper.0.weight", 4 * hidden, 3, 1, 1)
    x = g.take("pixels_mapper.0.bias", 4 * hidden)
    x = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    x = g.take("pixels_mapper.2.weight", hidden, 4 * hidden, 1, 1)[:, :, 0, 0] @ x
    return plain_norm(x + g.take("pixels_mapper.2.bias", hidden))


def plain_norm(x: np.ndarray) -> np.ndarray:
    """LayerNorm without affine over the last dimension, of a constant."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def res_block(g: Graph, x: str, skip: str | None, key: str, width: int, parts: int) -> str:
    """The hidden channels are made in `parts`: while GELU works, two copies of one part exist, not of all."""
    y = norm(g, last(g, depthwise(g, first(g, x), f"{key}.depthwise", width)), width)
    if skip is not None:
        y = g.op("Concat", y, skip, axis=-1)
    inside = g.take(f"{key}.channelwise.0.weight", 4 * width, width if skip is None else 2 * width)
    bias = g.take(f"{key}.channelwise.0.bias", 4 * width)
    hidden = [
        g.op("Gelu", affine(g, y, w, b)) for w, b in zip(np.split(inside, parts), np.split(bias, parts), strict=True)
    ]
    # GlobalResponseNorm multiplies and shifts hidden channels; both go into the layer behind it.
    rows, axis = g.constant(np.array([-1, 4 * width // parts])), g.constant(np.array([0]))
    squares = [g.op("ReduceSumSquare", g.op("Reshape", h, rows), axis, keepdims=0) for h in hidden]
    square = g.op("Concat", *squares, axis=0) if parts > 1 else squares[0]
    length = g.op("Sqrt", g.op("Max", square, g.constant(np.float32(1e-20))))
    mean = g.op("Add", g.op("ReduceMean", length, axis), g.constant(np.float32(1e-6)))
    gamma, beta = (g.take(f"{key}.channelwise.2.{name}", 1, 1, 1, 4 * width).ravel() for name in ("gamma", "beta"))
    scale = g.op("Add", g.op("Mul", g.op("Div", length, mean), g.constant(gamma)), g.constant(np.float32(1)))
    weight = g.take(f"{key}.channelwise.4.weight", width, 4 * width)
    scaled = g.op("Mul", g.constant(weight.T), g.op("Unsqueeze", scale, g.constant(np.array([1]))))
    weights = [scaled]
    if parts > 1:
        weights = g.split("Split", parts, scaled, g.constant(np.full(parts, 4 * width // parts)), axis=0)
    total = g.constant(g.take(f"{key}.channelwise.4.bias", width) + weight @ beta)
    for h, w in zip(hidden, weights):
        total = g.op("Add", g.op("MatMul", h, w), total)
    return g.op("Add", x, total)


def attention(g: Graph, x: str, tokens: np.ndarray, key: str, width: int, heads: int, cond: int) -> str:
    """Multi-head attention from every pixel to all pixels and the text tokens, with a residual."""
    query = g.op("Reshape", norm(g, x, width), g.constant(np.array([1, -1, width])))
    active = tokens / (1 + np.exp(-tokens))
    mapped = active @ g.take(f"{key}.kv_mapper.1.weight", width, cond).T + g.take(f"{key}.kv_mapper.1.bias", width)
    context = g.op("Concat", query, g.constant(mapped[None]), axis=1)
    weights = np.split(g.take(f"{key}.attention.attn.in_proj_weight", 3 * width, width), 3)
    biases = np.split(g.take(f"{key}.attention.attn.in_proj_bias", 3 * width), 3)
    weights[0], biases[0] = (part / math.sqrt(width // heads) for part in (weights[0], biases[0]))
    parts = []
    for i, (source, order) in enumerate(zip((query, context, context), ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))):
        y = g.op("Add", g.op("MatMul", source, g.constant(weights[i].T)), g.constant(biases[i]))
        y = g.op("Reshape", y, g.constant(np.array([1, -1, heads, width // heads])))
        parts.append(g.op("Transpose", y, perm=order))
    q, k, v = parts
    y = g.op("MatMul", g.op("Softmax", g.op("MatMul", q, k), axis=-1), v)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.op("Shape", x))
    return g.op("Add", x, linear(g, y, f"{key}.attention.attn.out_proj", width, width))


# Stage A's decoder, [1, H, W, C] inside


def stage_a_decoder(config: StageAConfig, tensors: Tensors, where: str) -> Graph:
    """latent [1, 4, h, w] -> image [1, 3, 4 h, 4 w], about [0, 1]."""
    g = Graph("stage_a_decoder", tensors, where)
    fine, coarse = config.hidden
    count = 1 + config.bottleneck_blocks
    weight = g.take("up_blocks.0.0.weight", coarse, config.latent_channels, 1, 1)[:, :, 0, 0] * config.scale_factor
    x = g.op("MatMul", last(g, "latent"), g.constant(weight.T))
    x = g.op("Add", x, g.constant(g.take("up_blocks.0.0.bias", coarse)))
    for i in range(1, count):
        x = gated_block(g, x, f"up_blocks.{i}", coarse)
    kernel = g.constant(g.take(f"up_blocks.{count}.weight", coarse, fine, 4, 4))
    bias = g.constant(g.take(f"up_blocks.{count}.bias", fine))
    x, cut = first(g, x), 1
    if config.replicate_edges:
        x, cut = g.op("Pad", x, g.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="edge"), 3
    x = last(g, g.op("ConvTranspose", x, kernel, bias, strides=[2, 2], pads=[cut] * 4))
    for i in range(config.fine_blocks):
        x = gated_block(g, x, f"up_blocks.{count + 1 + i}", fine)
    g.op("DepthToSpace", conv(g, first(g, x), "out_block.0", fine, 12), blocksize=2, mode="CRD")
    return g.finish({"latent": (1, config.latent_channels, "h", "w")}, "image", (1, 3, "height", "width"))


def gated_block(g: Graph, x: str, key: str, width: int) -> str:
    """Stage A's ResBlock; scale, shift and gate of each half are folded into norms and weights."""
    gammas = g.take(f"{key}.gammas", 6)
    y = norm(g, x, width, 1 + gammas[0], gammas[1])
    y = g.op("Pad", first(g, y), g.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="edge")
    x = g.op("Add", x, last(g, depthwise(g, y, f"{key}.depthwise.1", width, pad=0, gate=gammas[2])))
    y = norm(g, x, width, 1 + gammas[3], gammas[4])
    y = g.op("Gelu", linear(g, y, f"{key}.channelwise.0", width, 4 * width))
    return g.op("Add", x, linear(g, y, f"{key}.channelwise.2", 4 * width, width, gate=gammas[5]))


# Layers


def norm(g: Graph, x: str, width: int, scale: float = 1.0, shift: float = 0.0) -> str:
    """LayerNorm over the channels of [1, H, W, C], times a number, plus a number."""
    affine = [g.constant(np.full(width, scale))] + ([g.constant(np.full(width, shift))] if shift else [])
    return g.op("LayerNormalization", x, *affine, axis=-1, epsilon=1e-6)


def linear(g: Graph, x: str, key: str, width: int, out: int, gate: float = 1.0, ones: tuple = ()) -> str:
    """A linear layer of [1, H, W, C]; `ones`: the file has it as a 1x1 convolution."""
    weight = g.take(f"{key}.weight", out, width, *ones).reshape(out, width) * np.float32(gate)
    return affine(g, x, weight, g.take(f"{key}.bias", out) * np.float32(gate))


def affine(g: Graph, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
    return g.op("Add", g.op("MatMul", x, g.constant(weight.T)), g.constant(bias))


def depthwise(g: Graph, x: str, key: str, width: int, pad: int = 1, gate: float = 1.0) -> str:
    """A 3x3 convolution of each channel of [1, C, H, W] by itself."""
    weight = g.constant(g.take(f"{key}.weight", width, 1, 3, 3) * np.float32(gate))
    bias = g.constant(g.take(f"{key}.bias", width) * np.float32(gate))
    return g.op("Conv", x, weight, bias, kernel_shape=[3, 3], pads=[pad] * 4, group=width)


def resize(g: Graph, x: str, size: str, channels: int, mode: str) -> str:
    """Bilinear interpolation of [1, C, H, W] to `size` [2]."""
    sides = g.op("Concat", g.constant(np.array([1, channels])), size, axis=0)
    return g.op("Resize", x, "", "", sides, mode="linear", coordinate_transformation_mode=mode)


def first(g: Graph, x: str) -> str:
    return g.op("Transpose", x, perm=[0, 3, 1, 2])


def last(g: Graph, x: str) -> str:
    return g.op("Transpose", x, perm=[0, 2, 3, 1])
