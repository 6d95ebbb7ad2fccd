"""Quality of a received picture: one value per metric, on 8-bit RGB, or None for a metric that is not available."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..cascade.models import home
from ..files import cache_folder
from ..images import round_8bit
from .pixels import psnr_db, structure

if TYPE_CHECKING:
    from torch import Tensor

    from .lpips import LPIPS


NO_LPIPS = "lpips and lpips_vgg are null: no LPIPS weights; `semcast models fetch lpips` brings them"


def has_lpips() -> bool:
    """Whether LPIPS weights seem to be here, without importing torch, which takes seconds."""
    hub = Path(os.environ.get("TORCH_HOME") or cache_folder() / "torch") / "hub" / "checkpoints"
    ours = any((home() / "lpips").glob("*.safetensors"))
    return "SEMCAST_LPIPS" in os.environ or ours or any(hub.glob("alexnet-*.pth")) or any(hub.glob("vgg16-*.pth"))


def measure(
    sent: np.ndarray,
    received: np.ndarray,
    lpips: "dict[str, LPIPS]",
    maps: "dict[str, list[Tensor]] | None" = None,
) -> dict[str, float | None]:
    """Measure the quality of one picture; returns {metric: value}.

    Args:
        sent, received: [1, 3, H, W] in [0, 1].
        lpips: networks by name; "alex" is reported as `lpips`, "vgg" as `lpips_vgg`.
        maps: `reference_maps` of `sent`, to save time where many receptions of one picture are measured.
    """
    a, b = round_8bit(sent), round_8bit(received)
    maps = maps or reference_maps(sent, lpips)
    distance = {name: network.distance_to(maps[name], b) for name, network in lpips.items()}
    ssim, ms_ssim = structure(a, b)
    return {
        "psnr_db": psnr_db(a, b),
        "ssim": ssim,
        "ms_ssim": ms_ssim,
        "lpips": distance.get("alex"),
        "lpips_vgg": distance.get("vgg"),
    }


def reference_maps(sent: np.ndarray, lpips: "dict[str, LPIPS]") -> "dict[str, list[Tensor]]":
    """The feature maps of `sent` for every LPIPS network, as `measure` takes them."""
    return {name: network.maps_of(round_8bit(sent)) for name, network in lpips.items()}
