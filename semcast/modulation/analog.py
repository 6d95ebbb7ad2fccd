"""The analog modem: two numbers of Z form one complex symbol. There is no channel code, so there is no cliff.

The first half of the flattened Z are the real parts of x, the second half the imaginary parts; k = 16 hz wz / 2.
`modulate` and `demodulate` take batches, and torch tensors with their gradients, because training sends through them.
"""

import math
from dataclasses import replace

import numpy as np

from ..arrays import Array, array_namespace
from ..cascade.engine import Engine
from ..channels.base import Received, equalise
from ..header import Header, Transmission, stamp


class Analog:
    """Sends the symbols x [1, k]. They do not depend on the channel, so `snr_db` and `size_bytes` are ignored."""

    side_bits = 0  # in addition to the header

    def __init__(self, engine: Engine):
        self.noise_aware = engine.config.noise_aware

    def modulate(
        self, z: np.ndarray, header: Header, snr_db: float | None = None, size_bytes: int | None = None
    ) -> Transmission:
        x, gain = modulate(z)
        header = replace(header, gain=float(np.float16(gain.item())))
        return Transmission(stamp(header, x), x)

    def demodulate(self, arrived: Received, header: Header) -> tuple[np.ndarray, np.ndarray]:
        return demodulate(arrived, header.gain, header.latent_shape, self.noise_aware)


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


def demodulate(
    received: Received, gain: Array | float, shape: tuple[int, int, int], noise_aware: bool
) -> tuple[Array, Array]:
    """Estimate Z from received symbols -> (Z, its noise in [0, 1]), each [B, 16, hz, wz].

    The noise of a number is noise / (noise + signal) of its equalised symbol: 0 is clean, 1 is only noise (erased).

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
    return unflatten(estimate, gain, shape), noise


def unflatten(x: Array, gain: Array | float, shape: tuple[int, int, int]) -> Array:
    """Invert `modulate`: x [B, k], gain [B, 1] -> Z [B, 16, hz, wz]."""
    xp = array_namespace(x)
    return xp.reshape(xp.concat([xp.real(x), xp.imag(x)], axis=1) / gain, (-1, *shape))
