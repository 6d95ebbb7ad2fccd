"""All that learns in one phase, as a few long tensors: an update then costs a dozen kernels and not thousands."""

import numpy as np
import torch
from torch import Tensor, nn

ALIGNED = 64  # values: compiled kernels load several of a parameter at once


class Learner:
    """Float32 weights, their gradient and their running average, a long tensor each; the networks' parameters are views
    of a fourth in the networks' own precision. Matrices learn by Muon (Jordan 2024), everything else by AdamW."""

    def __init__(self, params: dict[str, nn.Parameter], rates: dict[str, float], edges, adam: float, muon: float, ema):
        """params: by name, those that start alike in one piece. rates: of a name's start, a factor on both learning
        rates. edges: parts of names of first and last layers, which do not learn by Muon."""
        self.params, self.names, self.ema, self.muon_lr, self.adam_lr = [*params.values()], [*params], ema, muon, adam
        device, dtype = self.params[0].device, self.params[0].dtype
        self.gaps = [torch.zeros(-p.numel() % ALIGNED, device=device, dtype=dtype) for p in self.params]
        ends = np.cumsum([p.numel() + len(gap) for p, gap in zip(self.params, self.gaps)])
        self.places = {  # where a parameter lies in the long tensors
            n: slice(int(end) - len(gap) - p.numel(), int(end) - len(gap))
            for n, p, gap, end in zip(self.names, self.params, self.gaps, ends)
        }
        self.master = self.flat([p.detach().float() for p in self.params]).float()
        self.average, self.own = self.master.clone(), self.master.to(dtype)
        for place, p in zip(self.places.values(), self.params):
            p.data = self.own[place].view(p.shape)
            p.requires_grad_(True)
        self.factors = [next(f for start, f in rates.items() if n.startswith(start)) for n in self.names]
        self.slices = [(self.reach(start), factor) for start, factor in rates.items()]
        groups = [{"params": [nn.Parameter(self.master[reach])]} for reach, _ in self.slices]
        self.adam = torch.optim.AdamW(
            groups, lr=adam, betas=(0.9, 0.99), weight_decay=0.01, fused=device.type == "cuda"
        )
        self.matrices: dict[tuple, list] = {}
        for name, p, factor in zip(self.names, self.params, self.factors):
            matrix = p.ndim >= 2 and p.numel() == p.shape[0] * p.shape[1] and min(p.shape[:2]) >= 16
            if muon and matrix and not any(e in name for e in edges):
                self.matrices.setdefault(tuple(p.shape[:2]), []).append((self.places[name], factor))
        self.momenta = {s: torch.zeros(len(found), *s, device=device) for s, found in self.matrices.items()}
        self.steps = 0

    def reach(self, start: str) -> slice:
        """Where all parameters lie whose names start so."""
        found = [place for name, place in self.places.items() if name.startswith(start)]
        return slice(found[0].start, found[-1].stop)

    def flat(self, parts: list[Tensor]) -> Tensor:
        """One tensor a parameter -> a long one, with gaps."""
        return torch.cat([t for part, gap in zip(parts, self.gaps) for t in (part.reshape(-1), gap)])

    @torch.no_grad()
    def step(self, curve: float, clip: float = 1.0) -> Tensor:
        """Use and clear the gradients; curve: the learning rates' share of their maximum. Returns the gradient's norm."""
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.params]
        gradient = self.flat(grads).float()
        for p in self.params:
            p.grad = None
        norm = gradient.norm()
        gradient = torch.where(torch.isfinite(norm), gradient * (clip / (norm + 1e-6)).clamp(max=1.0), 0.0)
        self.turn(gradient, curve)
        for group, (reach, factor) in zip(self.adam.param_groups, self.slices):
            group["params"][0].grad, group["lr"] = gradient[reach], self.adam_lr * factor * curve
        self.adam.step()
        self.own.copy_(self.master)
        self.average.lerp_(self.master, 1 - min(self.ema, (1 + self.steps) / (10 + self.steps)))
        self.steps += 1
        return norm

    def turn(self, gradient: Tensor, curve: float) -> None:
        """Muon with Nesterov momentum, all matrices of a shape at once; the gradient it has used becomes zero."""
        for shape, found in self.matrices.items():
            parts = [gradient[place] for place, _ in found]
            g = torch.cat(parts).view(len(found), *shape)
            x = g.lerp(self.momenta[shape].lerp_(g, 0.05), 0.95)
            x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).to(self.own.dtype)
            x = x.mT if shape[0] > shape[1] else x
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
            x = (x.mT if shape[0] > shape[1] else x).float().reshape(len(found), -1)
            rate = -self.muon_lr * curve * 0.2 * max(shape) ** 0.5
            x = x * torch.tensor([rate * factor for _, factor in found], device=x.device)[:, None]
            torch._foreach_add_([self.master[place] for place, _ in found], list(x.unbind(0)))
            torch._foreach_zero_(parts)

    def averages(self) -> dict[str, Tensor]:
        """The running average of every parameter, on the CPU."""
        host = self.average.cpu()
        return {n: host[place].view(p.shape).clone() for (n, place), p in zip(self.places.items(), self.params)}

    @torch.no_grad()
    def settle(self) -> None:
        """Make the averages the weights, and stop learning."""
        self.master.copy_(self.average)
        self.own.copy_(self.master)
        for p in self.params:
            p.requires_grad_(False)
