"""Transmitter: picture -> its layers and a header.

image [B, 3, H, W] in [0, 1] -> padded to multiples of 64 -> shrunk by `factor` -> encoder -> Z [B, 16, hz, wz]
                             -> padded -> enhancement -> the layers above Z, if they are sent
"""

from collections.abc import Callable

import numpy as np

from .arrays import Array, array_namespace
from .cascade.config import ModelConfig
from .cascade.engine import Engine
from .errors import InputError
from .header import (
    BASE,
    LAYER_RUNGS,
    PACKET_UNIT,
    PACKET_USES_MAX,
    RUNGS,
    Header,
    check_sides,
    encoder_sides,
    round_factor,
)


def transmit(
    image: np.ndarray, engine: Engine, factor: float | None = None, rungs: tuple[int, int] = BASE, packet_uses: int = 0
) -> tuple[list[np.ndarray], Header]:
    """Encode one picture [1, 3, H, W] in [0, 1] -> (its layers, its header, whose gain the modem will set).

    The layers are Z [1, 16, hz, wz], and if the rungs reach them those above it (`Header.layer_shapes`); where a packet
    follows the base, the picture itself comes second.

    Args:
        factor: encoder input side / padded side, by default the model's.
        rungs: the first and the last one to be sent.
        packet_uses: channel uses of a packet behind the base.

    Raises:
        InputError: a side outside 64 .. 8192, a factor outside 0.5 .. 1, rungs that there are not, or a packet that the
            model cannot use.
    """
    height, width = image.shape[-2:]
    check_sides(height, width)
    check_rungs(rungs, engine.config)
    check_packet(packet_uses, rungs, engine.config)
    header = Header(
        encoder_id=engine.encoder_id,
        height=height,
        width=width,
        factor=round_factor(engine.config.factor if factor is None else factor),
        gain=1.0,
        first_rung=rungs[0],
        last_rung=rungs[1],
        packet_uses=packet_uses,
    )
    padded = pad(np.asarray(image), header.padded)
    layers = [encode(padded, engine.encode, header.factor)]
    if rungs[1] > LAYER_RUNGS:
        layers += map(unit_power, engine.encode_layers(padded))
    if packet_uses:
        layers.append(np.asarray(image))
    return layers, header


def top_rung(config: ModelConfig) -> int:
    """The last rung that a model can send."""
    return RUNGS if config.enhancement.exists else LAYER_RUNGS


def check_rungs(rungs: tuple[int, int], config: ModelConfig) -> None:
    """Refuse rungs that a model does not have."""
    (first, last), top = rungs, top_rung(config)
    if not 1 <= first <= last <= top:
        raise InputError(f"there is no run of rungs {first} to {last}: model {config.name!r} has 1 to {top}")
    if rungs != BASE and not config.noise_aware:
        raise InputError(f"model {config.name!r} needs all of its latent; send rungs {BASE[0]} to {BASE[1]}")


def check_packet(packet_uses: int, rungs: tuple[int, int], config: ModelConfig) -> None:
    """Refuse a packet that cannot be sent behind the base, or that the receiver has no network for."""
    if not packet_uses:
        return
    check_restorer(config)
    if rungs != BASE:
        raise InputError("a packet follows the whole base; --mode mixed has no --rungs")
    if packet_uses % PACKET_UNIT or not PACKET_UNIT <= packet_uses <= PACKET_USES_MAX:
        raise InputError(
            f"a packet of {packet_uses} channel uses; it must be a multiple of {PACKET_UNIT} and at most {PACKET_USES_MAX}"
        )


def check_restorer(config: ModelConfig) -> None:
    """Refuse mode mixed for a model that has no network for it."""
    if not config.restorer.exists:
        raise InputError(f"model {config.name!r} has no network for packets behind the base; send analog or digital")


def packet_within(uses: int, base: Header) -> int:
    """The channel uses of the longest packet that `uses` leave behind a base; 0 if there is no room for one."""
    return min(max(uses - base.channel_uses, 0) // PACKET_UNIT * PACKET_UNIT, PACKET_USES_MAX)


def unit_power(layer: Array) -> Array:
    """[B, 16, h, w] -> the same, in which the symbols of channels p and p + 8 have mean power 1 over each picture."""
    xp = array_namespace(layer)
    pairs = xp.reshape(layer, (len(layer), 2, -1, *layer.shape[-2:]))
    power = xp.mean(xp.sum(pairs**2, axis=1, keepdims=True), axis=(3, 4), keepdims=True)
    return xp.reshape(pairs * xp.clip(power, 1e-8, None) ** -0.5, layer.shape)


def pad(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Repeat the last row and column until [B, 3, H, W] has `size`."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image  # without a copy, which matters for large pictures
    return np.pad(image, ((0, 0), (0, 0), (0, size[0] - height), (0, size[1] - width)), mode="edge")


def encode(image: Array, encoder: Callable[[Array], Array], factor: float) -> Array:
    """Encode padded images [B, 3, H, W] -> Z [B, 16, hz, wz], resized by nearest neighbour as in Stable Cascade."""
    height, width = image.shape[-2:]
    return encoder(resize_nearest(image, encoder_sides((height, width), factor)))


def resize_nearest(image: Array, size: tuple[int, int]) -> Array:
    """[B, 3, H, W] -> [B, 3, *size]; row i is row floor(i H / size[0]), in float32 as torch computes it."""
    xp = array_namespace(image)
    for axis, count in zip((2, 3), size):
        if image.shape[axis] != count:
            scale = np.float32(image.shape[axis]) / np.float32(count)
            picks = (
                np.floor(np.arange(count, dtype=np.float32) * scale).astype(np.int64).clip(max=image.shape[axis] - 1)
            )
            image = xp.take(image, xp.asarray(picks, device=image.device), axis=axis)
    return image
