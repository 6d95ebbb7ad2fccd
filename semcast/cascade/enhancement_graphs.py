"""Enhancement network and restorer as ONNX graphs: the same arithmetic as enhancement.py and restorer.py, which tests
compare.
"""

import numpy as np

from .config import ENHANCED_CHANNELS, EnhancementConfig, RestorerConfig
from .graph import Graph
from .networks import Tensors, affine, conv, first, gated_block, last


def enhancement_encoder(config: EnhancementConfig, tensors: Tensors, where: str) -> Graph:
    """image [1, 3, H, W] -> layers [1, 80, H/16, W/16]: the one at stride 8 in its first 64 channels, by 2x2 places."""
    g = Graph("enhancement_encoder", tensors, where)
    width_4, width_8, width_16 = config.encoder
    x = unshuffled(g, "image", "enc_in", width_4)
    x = blocks(g, x, "enc_4", width_4, config.encoder_blocks[0])
    x = blocks(g, down(g, x, "enc_down_8", width_4, width_8), "enc_8", width_8, config.encoder_blocks[1])
    fine = conv(g, first(g, x), "enc_out_8", width_8, ENHANCED_CHANNELS)
    x = blocks(g, down(g, x, "enc_down_16", width_8, width_16), "enc_16", width_16, config.encoder_blocks[2])
    middle = conv(g, first(g, x), "enc_out_16", width_16, ENHANCED_CHANNELS)
    g.op("Concat", g.op("SpaceToDepth", fine, blocksize=2), middle, axis=1)
    return g.finish({"image": (1, 3, "height", "width")}, "layers", (1, 5 * ENHANCED_CHANNELS, "h", "w"))


def enhancement_decoder(config: EnhancementConfig, tensors: Tensors, where: str) -> Graph:
    """base [1, 3, H, W], known_16 [1, 32, H/16, W/16], known_8 [1, 32, H/8, W/8] -> image [1, 3, H, W]."""
    g = Graph("enhancement_decoder", tensors, where)
    width_2, width_4, width_8, width_16 = config.decoder
    skip_4 = blocks(g, unshuffled(g, "base", "base_in", width_4), "base_4", width_4, config.base_blocks[0])
    skip_8 = down(g, skip_4, "base_down_8", width_4, width_8)
    skip_8 = blocks(g, skip_8, "base_8", width_8, config.base_blocks[1])
    known = [
        last(g, conv(g, f"known_{stride}", f"z_{stride}", 2 * ENHANCED_CHANNELS, width))
        for stride, width in ((16, width_16), (8, width_8))
    ]
    x = g.op("Add", down(g, skip_8, "base_down_16", width_8, width_16), known[0])
    x = blocks(g, x, "dec_16", width_16, config.decoder_blocks[3])
    x = g.op("Add", g.op("Add", up(g, x, "up_8", width_16, width_8), skip_8), known[1])
    x = blocks(g, x, "dec_8", width_8, config.decoder_blocks[2])
    x = g.op("Add", up(g, x, "up_4", width_8, width_4), skip_4)
    x = blocks(g, x, "dec_4", width_4, config.decoder_blocks[1])
    x = g.op("Pad", first(g, x), g.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="edge")
    kernel, bias = g.constant(g.take("up_2.weight", width_4, width_2, 4, 4)), g.constant(g.take("up_2.bias", width_2))
    x = last(g, g.op("ConvTranspose", x, kernel, bias, strides=[2, 2], pads=[3] * 4))
    x = blocks(g, x, "dec_2", width_2, config.decoder_blocks[0])
    x = g.op("DepthToSpace", conv(g, first(g, x), "out", width_2, 12), blocksize=2, mode="CRD")
    g.op("Add", "base", x)
    joined = 2 * ENHANCED_CHANNELS
    inputs = {"base": (1, 3, "height", "width"), "known_16": (1, joined, "h", "w"), "known_8": (1, joined, "h2", "w2")}
    return g.finish(inputs, "image", (1, 3, "height", "width"))


def restorer(config: RestorerConfig, tensors: Tensors, where: str) -> Graph:
    """base, draft [1, 3, H, W] and rate [1, 1, 1, 1] -> image [1, 3, H, W]."""
    g, width = Graph("restorer", tensors, where), config.width
    weight = g.take("pictures_in.weight", width, 96, 1, 1).reshape(width, 6, 16)
    bias = g.take("pictures_in.bias", width) - weight.sum(axis=(1, 2)) / 2
    x = last(g, g.op("SpaceToDepth", g.op("Concat", "base", "draft", axis=1), blocksize=4))
    x = affine(g, x, weight.swapaxes(1, 2).reshape(width, 96), bias)
    x = g.op("Add", x, last(g, conv(g, "rate", "rate_in", 1, width)))
    x = blocks(g, x, "blocks", width, config.blocks)
    x = g.op("DepthToSpace", conv(g, first(g, x), "out", width, 48), blocksize=4, mode="CRD")
    g.op("Add", "draft", x)
    picture = (1, 3, "height", "width")
    return g.finish({"base": picture, "draft": picture, "rate": (1, 1, 1, 1)}, "image", picture)


def unshuffled(g: Graph, x: str, key: str, width: int) -> str:
    """4x4 pixels, less 1/2, through a linear layer: [1, 3, H, W] -> [1, H/4, W/4, width]."""
    weight = g.take(f"{key}.weight", width, 48, 1, 1).reshape(width, 3, 16)
    bias = g.take(f"{key}.bias", width) - weight.sum(axis=(1, 2)) / 2
    x = g.op("SpaceToDepth", x, blocksize=4)  # whose channels are by place, then by colour
    return affine(g, last(g, x), weight.swapaxes(1, 2).reshape(width, 48), bias)


def blocks(g: Graph, x: str, key: str, width: int, count: int) -> str:
    for i in range(count):
        x = gated_block(g, x, f"{key}.{i}", width)
    return x


def down(g: Graph, x: str, key: str, width: int, out: int) -> str:
    """A convolution of 2x2 with stride 2: [1, H, W, width] -> [1, H/2, W/2, out]."""
    kernel, bias = g.constant(g.take(f"{key}.weight", out, width, 2, 2)), g.constant(g.take(f"{key}.bias", out))
    return last(g, g.op("Conv", first(g, x), kernel, bias, strides=[2, 2]))


def up(g: Graph, x: str, key: str, width: int, out: int) -> str:
    """A transposed convolution of 2x2 with stride 2: [1, H, W, width] -> [1, 2 H, 2 W, out]."""
    kernel, bias = g.constant(g.take(f"{key}.weight", width, out, 2, 2)), g.constant(g.take(f"{key}.bias", out))
    return last(g, g.op("ConvTranspose", first(g, x), kernel, bias, strides=[2, 2]))
