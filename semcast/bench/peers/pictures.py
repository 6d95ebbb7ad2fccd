"""From pictures to the rivals' latents and back: Stage A, then the rival's autoencoder."""

from pathlib import Path

from torch import Tensor

from ...cascade.stage_a import StageA
from .autoencoder import Autoencoder
from .parts import STAGE_A, load_part


def encode(image: Tensor, name: str, device: str) -> Tensor:
    """[B, 3, H, W] in [0, 1], sides multiples of the stride -> the latent of the autoencoder of this name."""
    return autoencoder(name, device).encode(stage_a(device).encode(image))


def decode(z: Tensor, name: str, device: str) -> Tensor:
    """-> [B, 3, H, W] in [0, 1]."""
    return stage_a(device).decode(autoencoder(name, device).decode(z)).float().clamp(0, 1)


def stage_a(device: str, folder: Path | None = None) -> StageA:
    network = load_part(STAGE_A, device, folder)
    assert isinstance(network, StageA)
    return network


def autoencoder(name: str, device: str, folder: Path | None = None) -> Autoencoder:
    network = load_part(name, device, folder)
    assert isinstance(network, Autoencoder)
    return network
