"""The fast layers against torch's own."""

import copy

import pytest
import torch
from torch import nn

from semcast.metrics import fast_layers


@pytest.mark.parametrize(
    ("inside", "outside", "sides", "bias"),
    [(64, 64, (64, 64), True), (16, 48, (35, 61), True), (64, 128, (32, 40), False)],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_winograd_equals_the_convolution(inside, outside, sides, bias, layout):
    torch.manual_seed(1)
    layer, x = (
        nn.Conv2d(inside, outside, 3, padding=1, bias=bias),
        torch.randn(1, inside, *sides).contiguous(memory_format=layout),
    )
    with torch.no_grad():
        if fast_layers.has_nnpack():
            assert fast_layers.is_winograd(layer, x)
        y, expected = fast_layers.apply(layer, x), layer.double()(x.double())
    assert y.dtype == torch.float32
    assert (y - expected).abs().max() < 3e-4 * expected.std()


@pytest.mark.parametrize("sides", [(64, 64), (6, 10), (7, 10), (10, 7)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_equals_torchs_pooling(sides, layout):
    x = torch.randn(2, 5, *sides, generator=torch.Generator().manual_seed(3)).contiguous(memory_format=layout)
    for layer in (nn.MaxPool2d(2), nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1)):
        with torch.no_grad():
            assert torch.equal(fast_layers.apply(layer, x), layer(x))
    assert fast_layers.is_pooling(nn.MaxPool2d(2), x) == (layout is torch.contiguous_format and 7 not in sides)


def test_fast_layers_are_not_used_where_they_do_not_apply(monkeypatch):
    monkeypatch.setattr(fast_layers, "is_pooling", lambda layer, x: pytest.fail("a fast layer was considered"))
    layer, x = nn.Conv2d(64, 64, 3, padding=1), torch.randn(1, 64, 64, 64)
    fast_layers.apply(layer, x)  # a gradient may be asked for
    with torch.no_grad():
        fast_layers.apply(layer.double(), x.double())
        with torch.autocast("cpu", torch.bfloat16):
            fast_layers.apply(layer.float(), x)
    for other in (
        nn.ReLU(),
        nn.Conv2d(64, 64, 5, padding=2),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1).double(),
    ):
        assert not fast_layers.is_winograd(other, x)
    for picture in (x.expand(2, -1, -1, -1), x[:, :, :31]):
        assert not fast_layers.is_winograd(layer, picture)


def test_lpips_has_a_gradient_and_without_one_the_value_of_torchs_layers(vgg):
    torch.manual_seed(2)
    a, b = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
    vgg(a, b).sum().backward()
    assert a.grad.abs().sum() > 0
    with torch.no_grad():
        expected = copy.deepcopy(vgg).double()(a.double(), b.double()).item()  # float64 uses torch's layers
        assert vgg(a, b).item() == pytest.approx(expected, rel=1e-4)
