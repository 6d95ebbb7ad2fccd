"""The linear schedule of 1000 steps, and samplers that start anywhere in it: DDPM (ancestral) and DDIM.

The process preserves variance: x_t = sqrt(abar(t)) x0 + sqrt(1 - abar(t)) eps, with t from 0 (clean) to 1000 (noise).
`semcast.cascade.diffusion` has the cosine schedule of semcast itself; these rivals were published with this one.
Sources: Ho et al. 2020 (betas 1e-4 to 0.02; equations 4 and 7), Song et al. 2021 (equation 12).

A denoiser is any function (x [B, c, h, w], t) -> eps of the same shape.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from torch import Tensor

from ...randomness import draw_noise

STEPS = 1000
BETAS = np.linspace(1e-4, 0.02, STEPS)
LOG_ALPHA_BAR = np.concatenate([[0.0], np.cumsum(np.log1p(-BETAS))])  # [1001], by t

Denoiser = Callable[[Tensor, float], Tensor]


def alpha_bar(t: float) -> float:
    """Share of the signal's variance at time t in [0, 1000], from 1 to 4e-5; its logarithm is linear between steps."""
    return math.exp(np.interp(t, np.arange(STEPS + 1), LOG_ALPHA_BAR))


def matched_time(noise_var: float) -> float:
    """The time in [0, 1000] at which the process is as noisy as a unit-variance latent that was received.

    Args:
        noise_var: linear, per real number of a latent with variance 1: 1 / snr.
    Returns:
        t with abar(t) = snr / (1 + snr), so that (latent + noise) sqrt(abar) is a state of the process.
    """
    return float(np.interp(math.log1p(noise_var), -LOG_ALPHA_BAR, np.arange(STEPS + 1)))


def add_noise(x0: Tensor, t: float, generators: Sequence[Generator]) -> Tensor:
    """x_t of a clean latent, with fresh noise: the start of image-to-image diffusion."""
    abar = alpha_bar(t)
    return math.sqrt(abar) * x0 + math.sqrt(1 - abar) * draw_noise(x0, generators)


def ddim(denoiser: Denoiser, x: Tensor, start: float, steps: int) -> Tensor:
    """Denoise x_start [B, c, h, w] in equal steps of t down to 0, without fresh noise -> x0. Nothing to do at 0."""
    times = np.linspace(start, 0.0, steps + 1) if start > 0 else []
    for t, s in zip(times[:-1], times[1:]):
        eps = denoiser(x, float(t))
        abar_t, abar_s = alpha_bar(t), alpha_bar(s)
        x0 = (x - math.sqrt(1 - abar_t) * eps) / math.sqrt(abar_t)
        x = math.sqrt(abar_s) * x0 + math.sqrt(1 - abar_s) * eps
    return x


def ddpm(denoiser: Denoiser, x: Tensor, generators: Sequence[Generator]) -> Tensor:
    """All 1000 ancestral steps from noise x [B, c, h, w] -> x0, with the posterior's variance at every step."""
    for t in range(STEPS, 0, -1):
        eps = denoiser(x, float(t))
        beta, abar, before = BETAS[t - 1], alpha_bar(t), alpha_bar(t - 1)
        x = (x - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta)
        if t > 1:
            x = x + math.sqrt(beta * (1 - before) / (1 - abar)) * draw_noise(x, generators)
    return x
