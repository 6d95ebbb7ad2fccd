"""LPIPS v0.1 (Zhang et al. 2018): a perceptual distance from AlexNet or VGG16 features.

The weights are not shipped. They are searched for in this order:

1. a folder given by the caller or by the environment variable SEMCAST_LPIPS, with `lpips_alex.safetensors` and
   `lpips_vgg.safetensors` (torchvision's `features.N.weight` and `.bias`, and `lin0.weight` .. `lin4.weight`);
2. what `fetch_lpips` brought;
3. torch's hub cache;
4. a download, only if asked for.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import alexnet, vgg16

from ..cascade.models import home
from ..errors import InputError, require
from ..files import load_tensors, make_folder, save_tensors
from . import fast_layers

NETWORKS = {  # name: builder, taps (ReLU layers), their widths, torchvision's backbone file
    "alex": (alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), "alexnet-owt-7be5be79.pth"),
    "vgg": (vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), "vgg16-397923af.pth"),
}
BACKBONE_URL = "https://download.pytorch.org/models/"
DOWNLOAD_TIMEOUT_S = 20
SHIFT = (-0.030, -0.088, -0.188)  # for inputs in [-1, 1], from the reference implementation
SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """images a, b [B, 3, H, W] in [0, 1] -> distance [B]. 0 for equal images."""

    def __init__(self, network: str):
        super().__init__()
        build, self.taps, widths, _ = NETWORKS[network]
        self.features = build(weights=None).features[: self.taps[-1] + 1]
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        for i, width in enumerate(widths):
            setattr(self, f"lin{i}", nn.Conv2d(width, 1, kernel_size=1, bias=False))
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distance(self.maps(a), self.maps(b))

    def maps(self, image: Tensor) -> list[Tensor]:
        """The feature maps at the five taps, normalised to unit length over channels."""
        shift, scale = (image.new_tensor(v)[:, None, None] for v in (SHIFT, SCALE))
        x, maps = (2 * image - 1 - shift) / scale, []
        for i, layer in enumerate(self.features):
            x = fast_layers.apply(layer, x)
            if i in self.taps:
                maps.append(x / (x.float().square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return maps

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """The distance [B] between two pictures, from their maps."""
        distances: list[Tensor] = []
        for i, (x, y) in enumerate(zip(a, b)):
            layer = getattr(self, f"lin{i}")((x - y).square())
            distances.append(layer.float().mean(dim=(1, 2, 3)))
        return sum(distances[1:], start=distances[0])

    @torch.inference_mode()
    def maps_of(self, image: np.ndarray) -> list[Tensor]:
        """`maps` of [1, 3, H, W] in [0, 1]."""
        return self.maps(torch.from_numpy(np.ascontiguousarray(image)))

    @torch.inference_mode()
    def distance_to(self, maps: list[Tensor], image: np.ndarray) -> float:
        """The distance of an image to one whose `maps_of` are given."""
        return self.distance(maps, self.maps_of(image)).item()


def load_lpips(network: str, folder: Path | None = None, fetch: bool = False) -> LPIPS:
    """Load LPIPS with `network` "alex" or "vgg".

    Args:
        folder: folder of weights; the default is the environment variable SEMCAST_LPIPS, then what `fetch_lpips` brought.
        fetch: download torchvision's backbone if it is not found.
    Raises:
        InputError: no weights were found (the message says how to get them), or they do not fit.
    """
    given, fetched = folder or os.environ.get("SEMCAST_LPIPS"), home() / "lpips"
    if not given and (fetched / f"lpips_{network}.safetensors").is_file():
        given = fetched
    with torch.device("meta"):
        lpips = LPIPS(network)
    if given:
        state = load_tensors(Path(given) / f"lpips_{network}.safetensors")
    else:
        state = _from_hub(network, fetch)
    state = {k: v.float() for k, v in state.items() if k in lpips.state_dict()}
    try:
        lpips.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(f"LPIPS weights for {network!r} do not fit: {str(error).splitlines()[1].strip()}") from None
    return lpips.requires_grad_(False)


def fetch_lpips(sources: Sequence[Path] | None = None) -> Path:
    """Bring both networks, by a download or from a folder with their safetensors files; returns where they are now."""
    target = make_folder(home() / "lpips")
    for network in NETWORKS:
        lpips = load_lpips(network, sources[0] if sources else None, fetch=True)
        save_tensors(lpips.state_dict(), target / f"lpips_{network}.safetensors")
    return target


def _from_hub(network: str, fetch: bool) -> dict[str, Tensor]:
    """Take the backbone from torch's hub cache or the download, the linear layers from the package torchmetrics."""
    require("LPIPS with torch's own weights", "torchmetrics")
    import torchmetrics.functional.image as package

    file = NETWORKS[network][3]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not cached.exists():
        if not fetch:
            raise InputError(
                f"no LPIPS weights for {network!r}: `semcast models fetch lpips` brings them; or set SEMCAST_LPIPS to a "
                f"folder with lpips_{network}.safetensors"
            )
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            prefix = file.split("-")[-1].split(".")[0]
            torch.hub.download_url_to_file(BACKBONE_URL + file, str(cached), hash_prefix=prefix)
        except Exception as error:  # urllib, ssl and socket raise exceptions of many types
            raise InputError(f"cannot download {BACKBONE_URL + file}: {error}") from None
        finally:
            socket.setdefaulttimeout(before)
    linear = Path(package.__file__).parent / "lpips_models" / f"{network}.pth"
    state = {}
    for path in (cached, linear):
        try:
            state |= torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            raise InputError(f"cannot read {path}: {error}") from None
    return {k.replace(".model.1.", "."): v for k, v in state.items()}
