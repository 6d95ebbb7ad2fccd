"""Sionna, which draws the paths of OFDM channels and codes packets, imported on first use. It runs on torch."""

import functools
from contextlib import AbstractContextManager
from types import ModuleType

import torch

from ..errors import require


@functools.cache
def sionna() -> ModuleType:
    """Import the package `sionna.phy`, which takes seconds. The import reseeds torch; this is undone.

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
