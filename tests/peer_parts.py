"""What the tests of the learned rivals share: tiny random networks, maps of streets, a sender as the bench calls it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semcast.bench.peers import gesco, img2img, maps, noisy_latent, parts
from semcast.bench.peers.autoencoder import AutoencoderConfig
from semcast.bench.peers.diffusion import ddim
from semcast.bench.peers.parts import PARTS, save_part, weights_path
from semcast.bench.peers.unet import UNet
from semcast.bench.systems import find_system
from semcast.bench.unit import check_sent
from semcast.cascade.config import StageAConfig
from semcast.metrics.segmenter import VOID
from semcast.randomness import seeded

TRUTH = {"gesco-labels", "gesco-published"}


def tiny(part: parts.Part) -> parts.Part:
    """The part with hardly any weights; strides, channels and what it is told stay."""
    if isinstance(part.config, StageAConfig):
        more = {"hidden": (4, 8), "encoder_blocks": (1, 1), "bottleneck_blocks": 1, "fine_blocks": 1}
    elif isinstance(part.config, AutoencoderConfig):
        more = {"widths": (8,) * len(part.config.widths), "depth": 1}
    else:
        more = {"widths": (8, 8, 16), "depth": 1}
    return replace(part, config=replace(part.config, **more))  # type: ignore[arg-type]


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, so that no zero initialisation hides a path."""
    for p in network.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.2)
    return network.eval().requires_grad_(False)


def untaught(name: str) -> torch.nn.Module:
    """A tiny network of a part; each time the same."""
    torch.manual_seed(0)
    return awake(tiny(PARTS[name]).build())


def street(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A map of sky, houses, road and a few things on it, uint8 [height, width]."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((height, width), np.uint8)
    classes[height // 3 :], classes[height // 2 :] = 1, 3
    for _ in range(12):
        top, left = rng.integers(height // 4, height - 8), rng.integers(0, width - 8)
        classes[top : top + rng.integers(4, height // 6), left : left + rng.integers(4, width // 8)] = rng.integers(
            VOID + 1
        )
    return classes


def told(network: UNet, count: int, rows: int, columns: int) -> dict:
    c, rng = network.config, seeded(5)
    draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape, np.float32))
    more = {"maps": draw(count, c.maps, rows, columns).abs()} if c.maps else {}
    if c.received:
        more |= {"received": draw(count, c.channels, rows, columns), "noise_var": draw(count).exp()}
    return {"x": draw(count, c.channels, rows, columns), "t": torch.linspace(5, 990, count), **more}


def send(name: str, pixels: np.ndarray, uses: int, snr_db: float = 10.0):
    """Symbols, side information and the facts that the bench counts."""
    system = find_system(name)
    uses = system.own_uses(*pixels.shape[:2]) if system.own_uses else uses
    told = {"truth": street(*pixels.shape[:2])} if name in TRUTH else {}
    x, side = system.send(pixels, uses, snr_db, **told)
    assert not system.own_uses or x.shape[1] == uses
    return x, side, check_sent(name, system, x, side, uses, snr_db)


@pytest.fixture(scope="session")
def peer_weights(tmp_path_factory) -> Path:
    """A folder with weights of tiny random networks of the learned rivals, and a map coder."""
    folder = tmp_path_factory.mktemp("peers")
    for name in PARTS:
        save_part(untaught(name), name, weights_path(name, folder), {"steps": 0})
    maps.save_counts(maps.count_maps([street(96, 128, seed) for seed in range(6)]), weights_path("maps", folder), {})
    return folder


@pytest.fixture
def peers(peer_weights, monkeypatch) -> Path:
    """The same, as the folder that SEMCAST_PEERS names."""
    monkeypatch.setenv("SEMCAST_PEERS", str(peer_weights))
    return peer_weights


@pytest.fixture
def few_steps(monkeypatch):
    """Rivals that take two or three steps of their diffusion."""
    for module in (img2img, gesco, noisy_latent):
        monkeypatch.setattr(module, "DDIM_STEPS", 2)
    monkeypatch.setattr(gesco, "ddpm", lambda denoiser, x, generators: ddim(denoiser, x, 1000, 3))
