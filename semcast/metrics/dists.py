"""DISTS: a distance of structure and texture from VGG16 features. It tolerates textures whose pixels differ."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import fast_layers

WIDTHS = (3, 64, 128, 256, 512, 512)
TAPS = (3, 8, 15, 22, 29)  # the ReLUs of VGG16 that LPIPS uses


class DISTS:
    """Ding et al. 2020, "Image quality assessment: unifying structure and texture similarity". 0 for equal images.

    Pictures are not resized. The VGG16 weights are those of LPIPS-VGG; alpha and beta come with torchmetrics.
    """

    def __init__(self, features: nn.Sequential, alpha: Tensor, beta: Tensor):
        """features: the first 30 layers of VGG16; alpha, beta: 1475 values each."""
        self.features, self.alpha, self.beta = features, alpha.flatten(), beta.flatten()
        hann = torch.hann_window(5, periodic=False)[1:-1]
        self.blur = torch.outer(hann, hann) / hann.sum().square()  # [3, 3]

    def maps(self, image: Tensor) -> list[Tensor]:
        """[1, 3, H, W] in [0, 1] -> the picture and five feature maps."""
        mean, deviation = (image.new_tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x, maps = (image - mean) / deviation, [image]
        for i, layer in enumerate(self.features[: TAPS[-1] + 1]):
            if isinstance(layer, nn.MaxPool2d):
                kernel = self.blur.expand(x.shape[1], 1, 3, 3)
                x = (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
            else:
                x = fast_layers.apply(layer, x)
            if i in TAPS:
                maps.append(x)
        return maps

    def moments(self, image: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What pictures are compared by: for each map, the map itself, its means and its variances [1, C]."""
        means = [(x, x.mean((2, 3), keepdim=True)) for x in self.maps(image)]
        return [(x, m[:, :, 0, 0], (x - m).square().mean((2, 3))) for x, m in means]  # x.var takes three times as long

    def distance(self, a: list[tuple[Tensor, Tensor, Tensor]], b: list[tuple[Tensor, Tensor, Tensor]]) -> float:
        """The distance between two pictures, from their moments."""
        total = self.alpha.sum() + self.beta.sum()
        score = 0.0
        for (x, mx, vx), (y, my, vy), alpha, beta in zip(a, b, self.alpha.split(WIDTHS), self.beta.split(WIDTHS)):
            covariance = (x * y).mean((2, 3)) - mx * my
            score += (alpha * (2 * mx * my + 1e-6) / (mx.square() + my.square() + 1e-6)).sum()
            score += (beta * (2 * covariance + 1e-6) / (vx + vy + 1e-6)).sum()
        return 1 - (score / total).item()
