"""Winograd's convolutions against torch's own."""

import pytest
import torch
from torch import nn

from semcast import winograd
from semcast.lpips import LPIPS


@pytest.mark.parametrize(
    ("inside", "outside", "sides", "bias"), [(64, 64, (64, 64), True), (16, 48, (35, 61), True), (64, 128, (32, 40), False)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_winograd_is_the_convolution(inside, outside, sides, bias, layout):
    torch.manual_seed(1)
    layer, x = nn.Conv2d(inside, outside, 3, padding=1, bias=bias), torch.randn(1, inside, *sides).contiguous(memory_format=layout)
    with torch.no_grad():
        if winograd.available():
            assert winograd.fits(layer, x)
        y, expected = winograd.apply(layer, x), layer.double()(x.double())
    assert y.dtype == torch.float32
    assert (y - expected).abs().max() < 3e-4 * expected.std()


def test_winograd_leaves_alone_what_it_is_not_for():
    layer, x = nn.Conv2d(64, 64, 3, padding=1), torch.randn(1, 64, 64, 64)
    assert not winograd.fits(layer, x)  # a gradient may be asked for
    with torch.no_grad():
        assert winograd.fits(layer, x) == winograd.available()
        for other in (
            nn.ReLU(),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.Conv2d(64, 64, 3),
            nn.Conv2d(64, 64, 3, padding=1, stride=2),
            nn.Conv2d(64, 64, 3, padding=1, groups=2),
            nn.Conv2d(64, 64, 3, padding=1).double(),
        ):
            assert not winograd.fits(other, x)
        for picture in (x.double(), x.expand(2, -1, -1, -1), x[:, :, :31], x.to("meta")):
            assert not winograd.fits(layer, picture)
        with torch.autocast("cpu", torch.bfloat16):
            assert not winograd.fits(layer, x)


def test_a_gradient_through_lpips_is_torchs_own():
    torch.manual_seed(2)
    lpips = LPIPS("vgg")
    a, b = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
    lpips(a, b).sum().backward()
    assert a.grad.abs().sum() > 0
    with torch.no_grad():
        assert lpips(a, b).item() == pytest.approx(lpips.double()(a.double(), b.double()).item(), rel=1e-4)
