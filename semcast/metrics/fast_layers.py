"""Faster ways to compute the layers of VGG16: on a CPU, for one large float32 picture, without gradients.

3x3 convolutions use Winograd's F(6x6, 3x3), which needs a fifth of the multiplications (Lavin & Gray 2016, arXiv
1509.09308). torch contains it, in NNPACK, but never chooses it on a PC or server. On AVX2 it takes a third to a half of
oneDNN's time; in training, on many small crops, it is slower.

The maximum of 2x2 pixels is taken over rows, then over columns, in an eighth of the time of torch's loop over windows.
"""

import functools
from typing import TypeGuard

import torch
from torch import Tensor, nn

CHANNELS_MIN, SIDE_MIN = 16, 32  # of a convolution; below these the transforms cost more than they save


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x), up to an error of 1e-4 of its standard deviation."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return layer(x)
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return layer(x)
    if is_pooling(layer, x):
        rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])
    if is_winograd(layer, x):
        conv = torch._nnpack_spatial_convolution  # pyright: ignore[reportPrivateImportUsage]
        return conv(x, layer.weight, layer.bias, padding=(1, 1))
    return layer(x)


def is_pooling(layer: nn.Module, x: Tensor) -> bool:
    """Whether `layer` is a maximum of 2x2 pixels and x is not channels-last, for which torch is fast."""
    return (
        isinstance(layer, nn.MaxPool2d)
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (2, 2, 0, 1)
        and not (x.shape[-2] % 2 or x.shape[-1] % 2)
        and x.is_contiguous()
    )


def is_winograd(layer: nn.Module, x: Tensor) -> TypeGuard[nn.Conv2d]:
    """Whether `layer` is a 3x3 convolution that NNPACK can do, and x one large picture."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and layer.groups == 1
        and layer.in_channels >= CHANNELS_MIN
        and len(x) == 1
        and min(x.shape[-2:]) >= SIDE_MIN
        and layer.weight.dtype == torch.float32
        and has_nnpack()
    )


@functools.cache
def has_nnpack() -> bool:
    """Whether NNPACK is available. The call also initialises NNPACK, whose convolutions fail without it."""
    return torch.backends.nnpack.is_available() and hasattr(torch, "_nnpack_spatial_convolution")
