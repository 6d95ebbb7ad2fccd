"""The physical layer on top of Sionna: OFDM over 3GPP channels, the digital link, and what theory allows."""

import functools
from types import ModuleType

import torch

from ..errors import InputError


@functools.cache
def sionna() -> ModuleType:
    """The package `sionna.phy`, imported on first use (seconds) without touching torch's random state.

    Raises:
        InputError: it is not installed.
    """
    with keep_random_state():  # its import reseeds torch
        try:
            import sionna.phy
        except ImportError as error:
            raise InputError(f"this needs Sionna ({error}): pip install 'semcast[phy]'") from None
        return sionna.phy


def keep_random_state():
    """Context in which torch's global generators may be reseeded, as Sionna does, and after which they are as before."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
