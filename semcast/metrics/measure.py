"""Quality of a received picture: one value per metric, on 8-bit RGB, or None for a metric that is not available."""

import math
from typing import cast

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim_measure
from torchmetrics.functional.image import structural_similarity_index_measure as ssim_measure

from ..images import round_8bit
from .lpips import LPIPS

PSNR_CAP_DB = 100.0  # reported for equal pictures, whose PSNR is infinite
MS_SSIM_SIDE_MIN = 176  # pixels: an 11-pixel window at five scales, 11 << 4


@torch.inference_mode()
def measure(
    sent: Tensor, received: Tensor, lpips: dict[str, LPIPS], maps: dict[str, list[Tensor]] | None = None
) -> dict[str, float | None]:
    """Measure the quality of one picture; returns {metric: value}.

    Args:
        sent, received: [1, 3, H, W] in [0, 1].
        lpips: networks by name; "alex" is reported as `lpips`, "vgg" as `lpips_vgg`.
        maps: `reference_maps` of `sent`, to save time where many receptions of one picture are measured.
    """
    a, b = round_8bit(sent), round_8bit(received)
    maps = maps or reference_maps(sent, lpips)
    distance = {name: network.distance(maps[name], network.maps(b)).item() for name, network in lpips.items()}
    return {
        "psnr_db": psnr_db(a, b),
        "ssim": cast(Tensor, ssim_measure(b, a, data_range=1.0)).item(),
        "ms_ssim": ms_ssim_measure(b, a, data_range=1.0).item() if min(a.shape[-2:]) >= MS_SSIM_SIDE_MIN else None,
        "lpips": distance.get("alex"),
        "lpips_vgg": distance.get("vgg"),
    }


@torch.inference_mode()
def reference_maps(sent: Tensor, lpips: dict[str, LPIPS]) -> dict[str, list[Tensor]]:
    """The feature maps of `sent` for every LPIPS network, as `measure` takes them."""
    return {name: network.maps(round_8bit(sent)) for name, network in lpips.items()}


def psnr_db(a: Tensor, b: Tensor) -> float:
    """10 log10(1 / mean squared error), at most 100 dB."""
    mse = (a - b).square().mean().item()
    return min(-10 * math.log10(mse), PSNR_CAP_DB) if mse else PSNR_CAP_DB
