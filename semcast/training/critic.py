"""The critic of adversarial training: small heads on VGG16's maps learn to tell decoded windows from true ones.

The losses have already computed these maps for LPIPS. Frozen features keep a critic stable with few pictures (Sauer et
al. 2021, "Projected GANs converge faster"); the hinge loss is that of Lim and Ye 2017.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..metrics.lpips import NETWORKS

TAPS = (1, 2, 3)  # indices of three of the five maps of VGG16, with cells of 2, 4 and 8 pixels
WIDTH = 64


class Critic(nn.Module):
    """Scores every place of the maps in TAPS; a high score means that the window looks true there."""

    def __init__(self):
        super().__init__()
        channels = NETWORKS["vgg"][2]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels[tap], WIDTH, kernel_size=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, WIDTH, kernel_size=3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, 1, kernel_size=1),
            )
            for tap in TAPS
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The five unit-length maps [B, C, h, w] -> scores [B, 1, h, w] of those in TAPS, scaled to unit power."""
        return [head(maps[tap] * maps[tap].shape[1] ** 0.5) for tap, head in zip(TAPS, self.heads)]

    def losses(self, decoded: Sequence[Tensor], true: Sequence[Tensor]) -> dict[str, Tensor]:
        """The loss of the model and that of the critic, from the five maps of decoded and of true windows.

        "adversarial" passes a gradient only to `decoded`, "critic" only to the critic's own weights.
        """
        fixed = {name: p.detach() for name, p in self.named_parameters()}
        believed = functional_call(self, fixed, (decoded,))
        false_scores, true_scores = self([m.detach() for m in decoded]), self(true)
        zero: Tensor = false_scores[0].new_zeros(())
        mistakes = sum((F.relu(1 + f).mean() + F.relu(1 - t).mean() for f, t in zip(false_scores, true_scores)), zero)
        return {"adversarial": -sum((score.mean() for score in believed), zero), "critic": mistakes}
