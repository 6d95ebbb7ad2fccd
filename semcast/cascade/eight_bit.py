"""Storage of weights in 8 bits, as integers from -127 to 127 with a scale per row.

A row is everything that belongs to one index of the first dimension. Files are half the size of bfloat16;
`tests/test_weights.py` tests the loss of quality.
"""

from collections.abc import Mapping

import numpy as np

SCALE = ".scale"  # added to a tensor's key, gives the key of its scales [rows]
TOP = 127


def compressed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert matrices and kernels to 8 bits and scales. Vectors (biases, BatchNorm statistics) stay as they are."""
    stored = {}
    for key, tensor in tensors.items():
        if is_matrix(tensor):
            rows = tensor.reshape(len(tensor), -1).astype(np.float32)
            scale = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-12)) / np.float32(TOP)  # [rows]
            stored[key] = np.rint(rows / scale[:, None]).astype(np.int8).reshape(tensor.shape)
            stored[key + SCALE] = scale
        else:
            stored[key] = tensor
    return stored


def is_matrix(tensor: np.ndarray) -> bool:
    """Whether it has two dimensions or more that are longer than 1, and fractions."""
    return np.issubdtype(tensor.dtype, np.floating) and tensor.squeeze().ndim >= 2


def expanded(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert the result of `compressed` back to float32. Tensors of any other precision stay as they are."""
    found = {}
    for key, tensor in tensors.items():
        if key.endswith(SCALE) and key.removesuffix(SCALE) in tensors:
            continue
        scale = tensors.get(key + SCALE)
        if scale is None or tensor.dtype != np.int8 or scale.shape != tensor.shape[:1]:
            found[key] = tensor
        else:
            found[key] = tensor * scale.reshape(-1, *[1] * (tensor.ndim - 1))
    return found
