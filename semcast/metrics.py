"""Quality of a received picture. One value per picture, on 8-bit RGB; a metric that cannot be had is None."""

import math

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as ms_ssim_measure,
)
from torchmetrics.functional.image import structural_similarity_index_measure as ssim_measure

from .images import round_8bit
from .lpips import LPIPS

PSNR_CAP_DB = 100.0  # of equal pictures, whose PSNR is infinite
MS_SSIM_SIDE_MIN = 176  # five scales of an 11-pixel window: 11 << 4


@torch.inference_mode()
def measure(sent: Tensor, received: Tensor, lpips: dict[str, LPIPS], maps: dict | None = None) -> dict[str, float | None]:
    """Quality of one picture, by metric.

    Args:
        sent, received: [1, 3, H, W] in [0, 1].
        lpips: networks by name; "alex" is reported as `lpips`, "vgg" as `lpips_vgg`.
        maps: `reference_maps` of `sent`, where many receptions of one picture are measured.
    """
    a, b = round_8bit(sent), round_8bit(received)
    maps = maps or reference_maps(sent, lpips)
    distance = {name: network.distance(maps[name], network.maps(b)).item() for name, network in lpips.items()}
    return {
        "psnr_db": psnr_db(a, b),
        "ssim": ssim_measure(b, a, data_range=1.0).item(),
        "ms_ssim": ms_ssim_measure(b, a, data_range=1.0).item() if min(a.shape[-2:]) >= MS_SSIM_SIDE_MIN else None,
        "lpips": distance.get("alex"),
        "lpips_vgg": distance.get("vgg"),
    }


@torch.inference_mode()
def reference_maps(sent: Tensor, lpips: dict[str, LPIPS]) -> dict[str, list[Tensor]]:
    """The features that LPIPS compares receptions of `sent` with."""
    return {name: network.maps(round_8bit(sent)) for name, network in lpips.items()}


def psnr_db(a: Tensor, b: Tensor) -> float:
    """10 log10(1 / mean squared error) of one picture, at most 100."""
    mse = (a - b).square().mean().item()
    return min(-10 * math.log10(mse), PSNR_CAP_DB) if mse else PSNR_CAP_DB
