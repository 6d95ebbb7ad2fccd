"""Identifying weights."""

import hashlib
from collections.abc import Mapping

import numpy as np


def encoder_id(encoder: Mapping[str, np.ndarray], enhancement: Mapping[str, np.ndarray] | None = None) -> int:
    """A 16-bit number that identifies what a sender runs: the encoder, and the encoding half of the enhancement network.

    Sender and receiver need the same of these, but no other network.
    """
    above = {f"enhancement.{k}": v for k, v in (enhancement or {}).items() if k.startswith("enc_")}
    return int(fingerprint({**encoder, **above})[:4], 16)


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a network's parameters and statistics in bfloat16, so that float32 and bfloat16 files agree."""
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        if np.issubdtype(tensor.dtype, np.floating):
            digest.update(key.encode())
            digest.update(bfloat16_bits(tensor).tobytes())
    return digest.hexdigest()


def bfloat16_bits(tensor: np.ndarray) -> np.ndarray:
    """The upper half of float32, rounded to the nearest, and to an even one between two."""
    bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
