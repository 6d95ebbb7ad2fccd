"""Random numbers from explicit CPU generators, so that results do not depend on the batch, device or threads."""

import functools
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import ModuleType

import torch
from torch import Generator, Tensor

from .errors import require


def seeded(*words: int | str) -> Generator:
    """A CPU generator for one purpose. Different words give independent generators.

    The words are hashed because torch's CPU generator uses only the low 32 bits of a seed.
    """
    digest = hashlib.sha256(repr(words).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def stream(seed: int, name: str) -> Generator:
    """The generator for one picture and one purpose, "channel" or "receiver"."""
    return seeded(name, int(seed))


def draw_noise(like: Tensor, generators: Sequence[Generator]) -> Tensor:
    """White noise N(0, 1) with the shape and device of `like` [B, ...]; image i is drawn from generators[i]."""
    noise = [torch.randn(like.shape[1:], generator=g, device=g.device) for g in generators]
    return torch.stack(noise).to(like.device)


@functools.cache
def sionna() -> ModuleType:
    """Import the package `sionna.phy` on first use, which takes seconds. The import reseeds torch; this is undone.

    Raises:
        InputError: the package is not installed.
    """
    require("this", "sionna")
    with keep_random_state():
        import sionna.phy
    return sionna.phy


def keep_random_state() -> AbstractContextManager[None]:
    """A context after which torch's global generators are as before, even if they were reseeded, as Sionna does."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
