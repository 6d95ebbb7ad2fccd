"""The analog modem: two numbers of Z form one complex symbol. There is no channel code, so there is no cliff.

The first half of the flattened Z are the real parts of x, the second half the imaginary parts; k = 16 hz wz / 2.
`modulate` and `demodulate` take batches and pass gradients, because training sends through them too.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..cascade.model import Cascade
from ..channels.base import Received, equalise
from ..header import Header, Transmission, stamp


class Analog:
    """Sends the symbols x [1, k]. They do not depend on the channel, so `snr_db` and `size_bytes` are ignored."""

    side_bits = 0  # in addition to the header

    def __init__(self, cascade: Cascade):
        self.noise_aware = cascade.config.noise_aware

    def modulate(
        self, z: Tensor, header: Header, snr_db: float | None = None, size_bytes: int | None = None
    ) -> Transmission:
        x, gain = modulate(z)
        header = replace(header, gain=gain.half().item())
        return Transmission(stamp(header, x), x.cpu())

    def demodulate(self, arrived: Received, header: Header) -> tuple[Tensor, Tensor]:
        return demodulate(arrived, header.gain, header.latent_shape, self.noise_aware)


def modulate(z: Tensor) -> tuple[Tensor, Tensor]:
    """Z [B, 16, hz, wz] -> (x [B, k] complex with mean |x|^2 = 1 in every row, gain [B, 1] with x = gain Z).

    Power is normalised per image, so that an image cannot take power from others in its batch.
    """
    real, imag = z.float().flatten(1).chunk(2, dim=1)  # [B, k] each
    gain = (real.square() + imag.square()).mean(dim=1, keepdim=True).clamp_min(1e-8).rsqrt()
    return torch.complex(real, imag) * gain, gain


def demodulate(
    received: Received, gain: Tensor | float, shape: tuple[int, int, int], noise_aware: bool
) -> tuple[Tensor, Tensor]:
    """Estimate Z from received symbols -> (Z, its noise in [0, 1]), each [B, 16, hz, wz].

    The noise of a number is noise / (noise + signal) of its equalised symbol: 0 is clean, 1 is only noise (erased).

    Args:
        gain: a number, or [B, 1].
        shape: shape of Z, [16, hz, wz].
        noise_aware: make the MMSE estimate; else divide by the channel gain only, as in the paper.
    """
    _, h, noise_var = received
    estimate = equalise(received, noise_aware)
    # an erased symbol has infinite noise_var, and inf / inf would be NaN
    level = torch.where(noise_var.isinf(), 1.0, noise_var / (h.abs().square() + noise_var).clamp_min(1e-12))
    noise = level.expand(estimate.shape).repeat(1, 2).view(-1, *shape)  # the same for both parts of a symbol
    return unflatten(estimate, torch.as_tensor(gain, device=estimate.device), shape), noise


def unflatten(x: Tensor, gain: Tensor | float, shape: tuple[int, int, int]) -> Tensor:
    """Invert `modulate`: x [B, k], gain [B, 1] -> Z [B, 16, hz, wz]."""
    return (torch.cat([x.real, x.imag], dim=1) / gain).view(-1, *shape)
