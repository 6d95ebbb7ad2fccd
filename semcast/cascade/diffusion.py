"""Diffusion: the cosine schedule, the three kinds of prediction, and the DDPM and DDIM samplers.

The process preserves variance: x_t = a(t) x0 + b(t) eps with a^2 = abar(t) and b^2 = 1 - abar(t), where t runs from
0 (clean) to 1 (noise). `sigma` means diffusion noise only; throughout the package, channel noise is `noise_var`.
Source: Stability-AI/StableCascade, gdf/ (cosine schedule of Nichol & Dhariwal 2021, s = 0.008).

A denoiser is any function (x [B, 4, h, w], t [B]) -> (x0, eps), each [B, 4, h, w].
"""

import math
from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Generator, Tensor

from ..randomness import draw_noise

S = 0.008
ABAR_MIN, ABAR_MAX = 1e-4, 0.9999

Denoiser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def alpha_bar(t: Tensor) -> Tensor:
    """abar(t) = cos^2((t + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2), clamped to [1e-4, 0.9999]."""
    abar = torch.cos((t.double() + S) / (1 + S) * math.pi / 2) ** 2 / math.cos(S / (1 + S) * math.pi / 2) ** 2
    return abar.clamp(ABAR_MIN, ABAR_MAX)


def network_time(t: Tensor) -> Tensor:
    """The time given to a network: the unclamped cosine inverted at abar(t), so 1 -> 0.99358 and 0 -> 0.00226."""
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
    """Convert a network's output to (x0, eps).

    Args:
        prediction: what the output is: "epsilon" (official), "x0" or "v" (a eps - b x0).
    """
    a, b = scales(t)
    if prediction == "epsilon":
        return (x - b * output) / a, output
    if prediction == "v":
        return a * x - b * output, b * x + a * output
    return output, (x - a * output) / b


def guide(cond: Tensor, uncond: Tensor, scale: float, rescale: float = 0.7) -> Tensor:
    """Classifier-free guidance: uncond + scale (cond - uncond), pulled back towards cond's standard deviation.

    The official implementation takes the deviation over the whole batch, so that an image depends on its neighbours;
    here it is taken per image. Source: gdf/__init__.py (cfg_rho); Lin et al. 2023, section 3.4.
    """
    guided = uncond + scale * (cond - uncond)
    std = [t.flatten(1).std(dim=1)[:, None, None, None] for t in (cond, guided)]
    return rescale * guided * std[0] / std[1].clamp_min(1e-12) + (1 - rescale) * guided


@overload
def sample(
    denoiser: Denoiser,
    x: Tensor,
    steps: int,
    generators: Sequence[Generator],
    eta: float = 1.0,
    progress: Callable[[int], None] | None = None,
    stop: None = None,
) -> Tensor: ...


@overload
def sample(
    denoiser: Denoiser,
    x: Tensor,
    steps: int,
    generators: Sequence[Generator],
    eta: float = 1.0,
    progress: Callable[[int], None] | None = None,
    *,
    stop: int,
) -> tuple[Tensor, Tensor]: ...


def sample(
    denoiser: Denoiser,
    x: Tensor,
    steps: int,
    generators: Sequence[Generator],
    eta: float = 1.0,
    progress: Callable[[int], None] | None = None,
    stop: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Sample a latent: start from white noise x [B, 4, h, w] at t = 1 and denoise it in equal steps of t.

    Args:
        steps: number of network evaluations, 1 or more; the x0 of the last one is returned.
        generators: one per picture, so that the result does not depend on the batch. `draw_noise` makes the first x.
        eta: 1 is DDPM (ancestral), 0 is DDIM (deterministic after the first noise).
        progress: called with the number of finished steps.
        stop: take only this many steps (fewer than `steps`) and return (x_t, t [B]), from where training goes on.
    Source: gdf/samplers.py; Song et al. 2021, equations 12 and 16.
    """
    ts = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for i in range(steps):
        if i == stop:
            return x, ts[i].expand(len(x)).to(x.device)
        x0, eps = denoiser(x, ts[i].expand(len(x)).to(x.device))
        if progress:
            progress(i + 1)
        if i + 1 == steps:
            return x0
        x = step_to(x0, eps, ts[i], ts[i + 1], draw_noise(x, generators) if eta else None, eta)
    raise ValueError(f"sampling needs at least one step, not {steps}")


def step_to(x0: Tensor, eps: Tensor, t: Tensor, s: Tensor, noise: Tensor | None, eta: float) -> Tensor:
    """Step from time t to s < t (both scalars): a_s x0 + sqrt(b_s^2 - sigma^2) eps + sigma noise."""
    abar_t, abar_s = alpha_bar(t).item(), alpha_bar(s).item()
    sigma = eta * math.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    x = math.sqrt(abar_s) * x0 + math.sqrt(max(1 - abar_s - sigma**2, 0.0)) * eps
    return x if noise is None else x + sigma * noise
