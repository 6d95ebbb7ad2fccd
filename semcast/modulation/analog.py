"""The analog modem: two numbers of Z form one complex symbol. There is no channel code, so there is no cliff.

The first half of the flattened Z are the real parts of x, the second half the imaginary parts; k = 16 hz wz / 2. So
rung p of a layer are its channels p and p + 8.

`modulate` and `demodulate` take batches, and torch tensors with their gradients, because training sends through them.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..arrays import Array, array_namespace
from ..cascade.engine import Engine
from ..channels.base import Received, equalise
from ..errors import InputError
from ..header import BASE, LAYER_RUNGS, Header, Transmission, stamp


class Estimate(NamedTuple):
    """What a receiver knows of one layer, [B, 16, h, w] each."""

    z: Array
    noise: Array  # in [0, 1]: noise / (noise + signal) of each number; 0 is clean, 1 is only noise, or not sent


class Analog:
    """Sends the symbols x [1, k]. They do not depend on the channel, so `snr_db` and `size_bytes` are ignored."""

    side_bits = 0  # in addition to the header

    def __init__(self, engine: Engine):
        self.noise_aware = engine.config.noise_aware

    def modulate(
        self, layers: list[np.ndarray], header: Header, snr_db: float | None = None, size_bytes: int | None = None
    ) -> Transmission:
        """Z, and the layers above it if the header's rungs reach them -> the symbols of these rungs."""
        refuse_packet(header)
        base, gain = modulate(layers[0])
        header = stamp(replace(header, gain=float(np.float16(gain.item()))), base)
        if header.rungs == BASE:
            return Transmission(header, base)
        first, last = header.rungs
        sent = base[:, sum(header.rung_uses[: first - 1]) : sum(header.rung_uses[: min(last, LAYER_RUNGS)])]
        partial = 0 < sent.size < base.size
        scale = np.mean(np.abs(sent) ** 2).clip(1e-8) ** -0.5 if partial else 1.0  # a part has unit power of its own
        above = [rung for z in layers[1:] for rung in np.split(modulate(z)[0], LAYER_RUNGS, axis=1)]
        above = above[max(first - 1 - LAYER_RUNGS, 0) : max(last - LAYER_RUNGS, 0)]
        header = replace(header, gain=float(np.float16(gain.item() * scale)) if sent.size else 1.0)
        return Transmission(header, np.concatenate([sent * np.float32(scale), *above], axis=1))

    def demodulate(self, arrived: Received, header: Header) -> list[Estimate]:
        """What is known of Z, and of the layers above it if the rungs reach them."""
        first, last = header.rungs
        layers, start = [], 0
        for i, (_, h, w) in enumerate(header.layer_shapes[: -(-last // LAYER_RUNGS)]):
            low, high = (min(max(rung - i * LAYER_RUNGS, 0), LAYER_RUNGS) for rung in (first - 1, last))
            stop = start + (high - low) * h * w
            part = Received(*(p[:, start:stop] if p.shape[1] > 1 else p for p in arrived))
            if low == high:
                known = np.empty((2, 0, h, w))
            else:
                shape = 2 * (high - low), h, w
                known = demodulate(part, header.gain if i == 0 else 1.0, shape, self.noise_aware)
            layers.append(Estimate(*(spread(p, low, high, fill) for p, fill in zip(known, (0.0, 1.0)))))
            start = stop
        return layers


def spread(part: np.ndarray, low: int, high: int, fill: float) -> np.ndarray:
    """Numbers [1, 2 n, h, w] of the n rungs low .. high - 1 of a layer -> all its channels [1, 16, h, w]."""
    if (low, high) == (0, LAYER_RUNGS):
        return part
    whole = np.full((2, LAYER_RUNGS, *part.shape[-2:]), fill, np.float32)
    whole[:, low:high] = part.reshape(2, high - low, *part.shape[-2:])
    return whole.reshape(1, 2 * LAYER_RUNGS, *part.shape[-2:])


def refuse_packet(header: Header) -> None:
    """Raise InputError if a packet behind the base is asked of a modem that sends none."""
    if header.packet_uses:
        raise InputError("only mode mixed sends a packet behind the base; leave it out, or choose mode mixed")


def modulate(z: Array) -> tuple[Array, Array]:
    """Z [B, 16, hz, wz] -> (x [B, k] complex with mean |x|^2 = 1 in every row, gain [B, 1] with x = gain Z).

    Power is normalised per image, so that an image cannot take power from others in its batch.
    """
    xp = array_namespace(z)
    parts = xp.reshape(xp.astype(z, xp.float32), (len(z), 2, -1))
    real, imag = parts[:, 0], parts[:, 1]  # [B, k] each
    power = xp.mean(real**2 + imag**2, axis=1, keepdims=True)
    gain = xp.clip(power, 1e-8, None) ** -0.5
    return (real + 1j * imag) * gain, gain


def demodulate(received: Received, gain: Array | float, shape: tuple[int, int, int], noise_aware: bool) -> Estimate:
    """Estimate Z from received symbols; the noise of a number is that of its equalised symbol.

    Args:
        gain: a number, or [B, 1].
        shape: shape of Z, [16, hz, wz].
        noise_aware: make the MMSE estimate; else divide by the channel gain only, as in the paper.
    """
    _, h, noise_var = received
    estimate = equalise(received, noise_aware)
    xp = array_namespace(estimate)
    finite = xp.where(noise_var == math.inf, 0.0, noise_var)  # of an erased symbol it is infinite; inf / inf is NaN
    level = xp.where(noise_var == math.inf, 1.0, finite / xp.clip(xp.abs(h) ** 2 + finite, 1e-12, None))
    level = xp.broadcast_to(level, estimate.shape)
    noise = xp.reshape(xp.concat([level, level], axis=1), (-1, *shape))  # the same for both parts of a symbol
    return Estimate(unflatten(estimate, gain, shape), noise)


def unflatten(x: Array, gain: Array | float, shape: tuple[int, int, int]) -> Array:
    """Invert `modulate`: x [B, k], gain [B, 1] -> Z [B, 16, hz, wz]."""
    xp = array_namespace(x)
    return xp.reshape(xp.concat([xp.real(x), xp.imag(x)], axis=1) / gain, (-1, *shape))
