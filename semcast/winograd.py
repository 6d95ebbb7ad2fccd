"""3x3 convolutions on a CPU by Winograd's F(6x6, 3x3), which multiplies a fifth as often.

torch has them in NNPACK, but never chooses it on a computer. VGG16 in float32 at 512x512 takes three fifths of the time that
oneDNN takes on AVX2; in training, on many small crops, it is slower. Source: Lavin & Gray 2016, arXiv 1509.09308.
"""

import functools

import torch
from torch import Tensor, nn

CHANNELS_MIN, SIDE_MIN = 16, 32  # below, the transforms cost more than they save


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x), equal to 1e-4 of its standard deviation; by Winograd's way where that is possible and faster."""
    if not fits(layer, x):
        return layer(x)
    return torch._nnpack_spatial_convolution(x, layer.weight, layer.bias, padding=(1, 1))


def fits(layer: nn.Module, x: Tensor) -> bool:
    """Whether this is a 3x3 convolution of one large picture in float32, without gradient."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and layer.groups == 1
        and layer.in_channels >= CHANNELS_MIN
        and len(x) == 1
        and min(x.shape[-2:]) >= SIDE_MIN
        and x.device.type == "cpu"
        and x.dtype == layer.weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and available()
    )


@functools.cache
def available() -> bool:
    """Also sets NNPACK up: without this call its convolutions fail."""
    return torch.backends.nnpack.is_available() and hasattr(torch, "_nnpack_spatial_convolution")
