"""The critic of adversarial training: small heads on VGG16's maps learn to tell decoded windows from true ones.

The maps are those of LPIPS, which the losses have computed already. Features that never learn keep such a critic steady
with few pictures (Sauer et al. 2021, "Projected GANs converge faster"); the hinge loss is that of Lim and Ye 2017.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .lpips import NETWORKS

TAPS = (1, 2, 3)  # of VGG16's five: cells of 2, 4 and 8 pixels
WIDTH = 64


class Critic(nn.Module):
    """Maps at the five taps -> one score for every place of each of TAPS; high where a window looks true."""

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
        """Unit-length maps [B, C, h, w], scaled here to unit power in every channel."""
        return [head(maps[tap] * maps[tap].shape[1] ** 0.5) for tap, head in zip(TAPS, self.heads)]

    def losses(self, decoded: Sequence[Tensor], true: Sequence[Tensor]) -> dict[str, Tensor]:
        """How little the critic believes, whose gradient reaches `decoded` alone; and its mistakes, which teach it alone."""
        fixed = {name: p.detach() for name, p in self.named_parameters()}
        believed = functional_call(self, fixed, (decoded,))
        false_scores, true_scores = self([m.detach() for m in decoded]), self(true)
        mistakes = sum(F.relu(1 + f).mean() + F.relu(1 - t).mean() for f, t in zip(false_scores, true_scores))
        return {"adversarial": -sum(score.mean() for score in believed), "critic": mistakes}
