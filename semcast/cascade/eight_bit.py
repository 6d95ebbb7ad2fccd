"""Storage of weights in 8 bits, as integers from -127 to 127 with a scale per row.

A row is everything that belongs to one index of the first dimension. Files are half the size of bfloat16;
`tests/test_weights.py` tests the loss of quality.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # added to a tensor's key, gives the key of its scales [rows]
TOP = 127


def compressed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert matrices and kernels to 8 bits and scales. Vectors (biases, BatchNorm statistics) stay as they are."""
    stored = {}
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.squeeze().ndim >= 2:
            rows = tensor.detach().cpu().float().flatten(1)
            scale = rows.abs().amax(dim=1).clamp_min(1e-12) / TOP  # [rows]
            stored[key] = (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape)
            stored[key + SCALE] = scale
        else:
            stored[key] = tensor.detach().cpu()
    return stored


def expanded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the result of `compressed` back to float32. Tensors of any other precision stay as they are."""
    found = {}
    for key, tensor in tensors.items():
        if key.endswith(SCALE) and key.removesuffix(SCALE) in tensors:
            continue
        scale = tensors.get(key + SCALE)
        if scale is None or tensor.dtype != torch.int8 or scale.shape != tensor.shape[:1]:
            found[key] = tensor
        else:
            found[key] = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
    return found
