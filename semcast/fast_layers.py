"""Layers of VGG16 that torch has a faster way for than it takes: on a CPU, for one large picture in float32, without gradient.

3x3 convolutions by Winograd's F(6x6, 3x3), which multiplies a fifth as often (Lavin & Gray 2016, arXiv 1509.09308): in NNPACK, which torch
has and never chooses on a computer; on AVX2 a third to a half of oneDNN's time. In training, on many small crops, it is slower.
Maxima of 2x2 pixels as maxima of rows, then of columns: an eighth of the time of torch's loop over windows.
"""

import functools

import torch
from torch import Tensor, nn

CHANNELS_MIN, SIDE_MIN = 16, 32  # of a convolution; below, the transforms cost more than they save


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x), equal to 1e-4 of its standard deviation."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return layer(x)
    if is_pooling(layer, x):
        rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])
    if is_winograd(layer, x):
        return torch._nnpack_spatial_convolution(x, layer.weight, layer.bias, padding=(1, 1))
    return layer(x)


def is_pooling(layer: nn.Module, x: Tensor) -> bool:
    """A maximum of 2x2 pixels. (In channels-last torch's own is fast.)"""
    return (
        isinstance(layer, nn.MaxPool2d)
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (2, 2, 0, 1)
        and not (x.shape[-2] % 2 or x.shape[-1] % 2)
        and x.is_contiguous()
    )


def is_winograd(layer: nn.Module, x: Tensor) -> bool:
    """A 3x3 convolution of one large picture."""
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
    """Also sets NNPACK up: without this call its convolutions fail."""
    return torch.backends.nnpack.is_available() and hasattr(torch, "_nnpack_spatial_convolution")
