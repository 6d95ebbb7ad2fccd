"""Diffusion: the cosine schedule, the three ways a network can predict, and the DDPM and DDIM samplers.

Variance preserving: x_t = a(t) x0 + b(t) eps, a^2 = abar(t), b^2 = 1 - abar(t), t from 0 (clean) to 1 (noise).
`sigma` is diffusion noise only; channel noise is `noise_var` everywhere in this package.
Source: Stability-AI/StableCascade, gdf/ (cosine schedule of Nichol & Dhariwal 2021, s = 0.008).

A denoiser is any function (x [B, 4, h, w], t [B]) -> (x0, eps), each [B, 4, h, w].
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

S = 0.008
ABAR_MIN, ABAR_MAX = 1e-4, 0.9999

Denoiser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def alpha_bar(t: Tensor) -> Tensor:
    """abar(t) = cos^2((t + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2), clamped to [1e-4, 0.9999]."""
    abar = torch.cos((t.double() + S) / (1 + S) * math.pi / 2) ** 2 / math.cos(S / (1 + S) * math.pi / 2) ** 2
    return abar.clamp(ABAR_MIN, ABAR_MAX)


def network_time(t: Tensor) -> Tensor:
    """The time a network is told: the inverse of the unclamped cosine, so 1 -> 0.99358 and 0 -> 0.00226."""
    root = (alpha_bar(t) * math.cos(S / (1 + S) * math.pi / 2) ** 2).sqrt()
    return ((1 + S) * (2 / math.pi) * torch.acos(root) - S).float()


def log_snr(t: Tensor) -> Tensor:
    """ln(abar / (1 - abar)), from -9.21 at t = 1 to 9.21 at t = 0."""
    return torch.logit(alpha_bar(t)).float()


def scales(t: Tensor) -> tuple[Tensor, Tensor]:
    """t [B] -> a, b, each [B, 1, 1, 1]."""
    abar = alpha_bar(t)[:, None, None, None]
    return abar.sqrt().float(), (1 - abar).sqrt().float()


def add_noise(x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = a x0 + b eps."""
    a, b = scales(t)
    return a * x0 + b * eps


def x0_and_eps(output: Tensor, x: Tensor, t: Tensor, prediction: str) -> tuple[Tensor, Tensor]:
    """What a network's output says of both. prediction: "epsilon" (official), "x0" or "v" (a eps - b x0)."""
    a, b = scales(t)
    if prediction == "epsilon":
        return (x - b * output) / a, output
    if prediction == "v":
        return a * x - b * output, b * x + a * output
    return output, (x - a * output) / b


def guide(cond: Tensor, uncond: Tensor, scale: float, rescale: float = 0.7) -> Tensor:
    """Classifier-free guidance: uncond + scale (cond - uncond), pulled back towards cond's standard deviation.

    The official code takes the deviation over the whole batch, so an image would depend on its neighbours; here it
    is taken per image. Source: gdf/__init__.py (cfg_rho); Lin et al. 2023, section 3.4.
    """
    guided = uncond + scale * (cond - uncond)
    std = [t.flatten(1).std(dim=1)[:, None, None, None] for t in (cond, guided)]
    return rescale * guided * std[0] / std[1].clamp_min(1e-12) + (1 - rescale) * guided


def sample(
    denoiser: Denoiser,
    x: Tensor,
    steps: int,
    generators: Sequence[Generator],
    eta: float = 1.0,
    progress: Callable[[int], None] | None = None,
    stop: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Walk from white noise x [B, 4, h, w] at t = 1 to a latent in equal steps of t.

    Args:
        steps: network evaluations, 1 or more; the last one returns its x0.
        generators: one a picture, so the result does not depend on the batch. `draw_noise` makes the first x.
        eta: 1 is DDPM (ancestral), 0 is DDIM (deterministic after the first noise).
        progress: called with the number of finished steps.
        stop: walk only so many steps (fewer than `steps`) and return (x_t, t [B]) instead; training starts there.
    Source: gdf/samplers.py; Song et al. 2021, equations 12 and 16.
    """
    ts = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for i in range(steps):
        if i == stop:
            return x, ts[i].expand(len(x)).to(x.device)
        x0, eps = denoiser(x, ts[i].expand(len(x)).to(x.device))
        if progress:
            progress(i + 1)
        if i + 1 < steps:
            x = step_to(x0, eps, ts[i], ts[i + 1], draw_noise(x, generators) if eta else None, eta)
    return x0


def step_to(x0: Tensor, eps: Tensor, t: Tensor, s: Tensor, noise: Tensor | None, eta: float) -> Tensor:
    """One step from time t to s < t (both scalars): a_s x0 + sqrt(b_s^2 - sigma^2) eps + sigma noise."""
    abar_t, abar_s = alpha_bar(t).item(), alpha_bar(s).item()
    sigma = eta * math.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    x = math.sqrt(abar_s) * x0 + math.sqrt(max(1 - abar_s - sigma**2, 0.0)) * eps
    return x if noise is None else x + sigma * noise


def seeded(*words: int | str) -> Generator:
    """A generator on the CPU for one purpose: independent for every list of words.

    Hashed, because torch's CPU generator looks at the low 32 bits of a seed only.
    """
    digest = hashlib.sha256(repr(words).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def draw_noise(like: Tensor, generators: Sequence[Generator]) -> Tensor:
    """White noise shaped and placed as `like` [B, ...], image i from generators[i]."""
    noise = [torch.randn(like.shape[1:], generator=g, device=g.device) for g in generators]
    return torch.stack(noise).to(like.device)
