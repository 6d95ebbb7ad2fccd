"""The link as training sees it: channels drawn for every picture, everything with its gradient."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from semcast.channels.base import Received
from semcast.header import LAYER_RUNGS, encoder_sides
from semcast.modulation.analog import demodulate, modulate
from semcast.transmitter import unit_power

SNR_DB = -3.0, 24.0
FADING, ERASURES, CUT = 0.08, 0.08, 0.12  # shares of the pictures


def draw_snr(batch: int, device) -> Tensor:
    """[B, 1] in dB."""
    return SNR_DB[0] + (SNR_DB[1] - SNR_DB[0]) * torch.rand(batch, 1, device=device)


class Air:
    """The channel of each picture of a batch: an SNR [B, 1] in dB, and whether it fades or loses symbols."""

    def __init__(self, snr_db: Tensor, clean: bool = False):
        self.snr_db = snr_db
        kind, self.rate = (torch.rand_like(snr_db) for _ in range(2))
        self.fades = (kind < FADING) & (not clean)
        self.loses = (kind >= 1 - ERASURES) & (not clean)

    def send(self, x: Tensor, rungs: Tensor) -> Received:
        """x [B, k] -> what arrives of its first `rungs` [B, 1] of eight."""
        normal = lambda: torch.complex(torch.randn_like(x.real), torch.randn_like(x.real)) / math.sqrt(2)
        noise_var = 10 ** (-self.snr_db / 10)
        h = torch.where(self.fades, normal(), torch.ones_like(x))
        lost = self.loses & (torch.rand_like(x.real) < 0.5 * self.rate)
        lost |= torch.arange(x.shape[1], device=x.device) >= rungs * (x.shape[1] // LAYER_RUNGS)
        y = torch.where(lost, torch.zeros_like(x), h * x + normal() * noise_var.sqrt())
        return Received(y, h, torch.where(lost, torch.inf, noise_var.expand_as(x.real)))


def encode(encoder, images: Tensor, factor: float) -> Tensor:
    """images [B, 3, H, W] -> Z [B, 16, hz, wz], as `transmitter.encode`, without copies from the host."""
    small = F.interpolate(images, size=encoder_sides(images.shape[-2:], factor), mode="nearest")
    if "mean" not in CONSTANTS:
        CONSTANTS["mean"] = torch.tensor((0.485, 0.456, 0.406), device=images.device)[:, None, None]
        CONSTANTS["std"] = torch.tensor((0.229, 0.224, 0.225), device=images.device)[:, None, None]
    small = ((small.float() - CONSTANTS["mean"]) / CONSTANTS["std"]).to(images.dtype)
    return encoder.mapper(encoder.backbone(small.contiguous(memory_format=torch.channels_last))).float()


CONSTANTS: dict[str, Tensor] = {}


def hear_base(z: Tensor, air: Air, cut: float = CUT):
    """Z -> the receiver's estimate and its noise; of a share of the pictures only some rungs arrive."""
    x, gain = modulate(z)
    short = torch.rand_like(air.snr_db) < cut
    rungs = torch.where(short, torch.randint(1, LAYER_RUNGS, short.shape, device=z.device), LAYER_RUNGS)
    return demodulate(air.send(x, rungs), gain, z.shape[1:], True)


def hear_layer(layer: Tensor, air: Air, rungs: Tensor) -> Tensor:
    """A layer above Z [B, 16, h, w], of which `rungs` [B, 1] of eight arrive -> estimate and noise [B, 32, h, w]."""
    x, _ = modulate(unit_power(layer.float()))
    known = demodulate(air.send(x, rungs), 1.0, layer.shape[1:], True)
    return torch.cat([*known], dim=1)
