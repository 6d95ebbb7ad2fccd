"""What a decoded picture is judged by: L1, LPIPS-VGG, EfficientNet-Lite1's maps, and a critic that learns beside them."""

import random

import torch
from nets import Critic, Features
from torch import Tensor
from torch.nn import functional as F

RATIO_EVERY = 16  # steps between measurements of the critic's gradient beside that of the other losses


class Objective:
    """Call it with a decoded batch for its gradient; then `teach` the critic by the same maps."""

    def __init__(self, features: Features, critic: Critic, critic_lr: float, weights: dict[str, float], window: int):
        self.features, self.critic, self.weights, self.window = features, critic, weights, window
        self.adam = torch.optim.AdamW(critic.parameters(), lr=critic_lr, betas=(0.5, 0.99), weight_decay=0.0)
        self.rng, self.ratio, self.calls, self.autocast = random.Random(0), None, 0, features.dtype == torch.bfloat16

    def __call__(self, decoded: Tensor, truth: Tensor, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """decoded, truth [B, 3, H, W] -> (the loss's gradient [B, 3, H, W], its terms).

        share: how long the critic's gradient is beside that of the other losses; 0 leaves it out.
        """
        y = decoded.detach().requires_grad_()
        fake, true = self.same_window(y, truth)
        fakes, trues = self.maps(fake), self.maps_of_truth(true)
        with torch.no_grad():
            half = self.features.vgg_maps(F.avg_pool2d(truth, 2))
        difference = y - truth
        terms = {
            "l1": difference.abs().mean(),
            "mean": F.avg_pool2d(difference, 16).abs().mean(),
            "vgg": self.features.lpips(fakes[0], trues[0]),
            "half": self.features.lpips(self.features.vgg_maps(F.avg_pool2d(y, 2)), half),
            "lite": self.features.lite_distance(fakes[1], trues[1]),
        }
        terms |= {"grid": grid_loss(y), "spectrum": spectrum_loss(fake, true)}
        seen = sum(self.weights[n] * v for n, v in terms.items() if self.weights[n])
        self.seen_maps = [m.detach() for part in fakes for m in part], [m for part in trues for m in part]
        if not share:
            return torch.autograd.grad(seen, y)[0], terms
        self.critic.requires_grad_(False)
        believed = terms["believed"] = -self.scores(fakes[0] + fakes[1])
        if self.ratio is None or self.calls % RATIO_EVERY == 0:
            g_seen = torch.autograd.grad(seen, y, retain_graph=True)[0]
            g_believed = torch.autograd.grad(believed, y)[0]
            now = g_seen.norm() / g_believed.norm().clamp_min(1e-12)
            self.ratio = now if self.ratio is None else 0.9 * self.ratio + 0.1 * now
            gradient = g_seen + share * self.ratio * g_believed
        else:
            gradient = torch.autograd.grad(seen + share * self.ratio * believed, y)[0]
        self.calls += 1
        return gradient, terms

    def maps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.features.vgg_maps(image), self.features.lite_maps(image)

    @torch.no_grad()
    def maps_of_truth(self, image: Tensor):
        return self.maps(image)

    def scores(self, maps: list[Tensor]) -> Tensor:
        with torch.autocast(maps[0].device.type, dtype=torch.bfloat16, enabled=self.autocast):
            scores = self.critic(maps)
            return sum(s.float().mean() for s in scores) / len(scores)

    def teach(self, curve: float, lr: float) -> Tensor:
        """One step of the critic on the last call's pictures: the hinge loss, mean over its heads."""
        self.critic.requires_grad_(True)
        with torch.autocast(self.seen_maps[0][0].device.type, dtype=torch.bfloat16, enabled=self.autocast):
            false, real = (self.critic(maps) for maps in self.seen_maps)
        loss = sum(F.relu(1 + f.float()).mean() + F.relu(1 - r.float()).mean() for f, r in zip(false, real)) / len(real)
        for group in self.adam.param_groups:
            group["lr"] = lr * (0.2 + 0.8 * curve)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        return loss.detach()

    def same_window(self, decoded: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The same random square of both, mirrored at random."""
        side = min(self.window, decoded.shape[-1])
        top, left = (self.rng.randrange(decoded.shape[-1] - side + 1) for _ in range(2))
        flip = self.rng.random() < 0.5
        cut = lambda x: x[..., top : top + side, left : left + side]
        return tuple(cut(x).flip(-1) if flip else cut(x) for x in (decoded, truth))


def grid_loss(decoded: Tensor, period: int = 64) -> Tensor:
    """RMS of the pattern, common to the batch, that repeats every `period` pixels: Stage B's largest cells and all below."""
    fine = decoded - F.avg_pool2d(decoded, period + 1, 1, period // 2, count_include_pad=False)
    b, c, *sides = fine.shape
    h, w = (side // period for side in sides)
    cells = fine[..., : h * period, : w * period].reshape(b, c, h, period, w, period)
    return cells.mean(dim=(0, 2, 4)).square().mean().clamp_min(1e-10).sqrt()


def spectrum_loss(decoded: Tensor, truth: Tensor) -> Tensor:
    """How much more power than the truth the batch has at a frequency."""
    hann = torch.hann_window(decoded.shape[-1], periodic=False, device=decoded.device)
    hann = hann[:, None] * hann

    def power(x):
        x = (x - x.mean(dim=(-2, -1), keepdim=True)) * hann
        return torch.fft.rfft2(x).abs().square().mean(dim=(0, 1)) / hann.square().sum() + 0.005**2

    excess = (power(decoded) / power(truth)).log() - 0.5
    return excess.relu().square().sum() / excess.numel() ** 0.5
