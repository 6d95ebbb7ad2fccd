"""Random numbers from explicit generators, so that results depend on neither batch, device, engine nor threads.

All come from numpy's Philox, a counter-based generator (Salmon et al. 2011), also where they end up as torch tensors:
a seed means the same everywhere.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from .arrays import array_namespace


def seeded(*words: int | str) -> Generator:
    """A generator for one purpose. Different words give independent generators."""
    digest = hashlib.sha256(repr(words).encode()).digest()
    return Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def stream(seed: int, name: str) -> Generator:
    """The generator for one picture and one purpose, "channel" or "receiver"."""
    return seeded(name, int(seed))


def draw_noise(like, generators: Sequence[Generator]):
    """White noise N(0, 1), float32, with the shape, kind and device of `like` [B, ...]; image i from generators[i]."""
    noise = np.stack([g.standard_normal(like.shape[1:], np.float32) for g in generators])
    return array_namespace(like).asarray(noise, device=like.device)
