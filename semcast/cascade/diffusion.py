"""Diffusion: the cosine schedule, the three kinds of prediction, and the DDPM and DDIM samplers.

The process preserves variance: x_t = a(t) x0 + b(t) eps with a^2 = abar(t) and b^2 = 1 - abar(t), where t runs from
0 (clean) to 1 (noise). `sigma` means diffusion noise only; throughout the package, channel noise is `noise_var`.
Source: Stability-AI/StableCascade, gdf/ (cosine schedule of Nichol & Dhariwal 2021, s = 0.008).

A denoiser is any function (x [B, 4, h, w], t [B]) -> (x0, eps), each [B, 4, h, w]. Arrays are numpy's or, in training,
torch tensors.
"""

import math
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from numpy.random import Generator

from ..arrays import Array, array_namespace
from ..randomness import draw_noise

S = 0.008
ABAR_MIN, ABAR_MAX = 1e-4, 0.9999

Denoiser = Callable[[Array, Array], tuple[Array, Array]]


def alpha_bar(t: Array) -> Array:
    """abar(t) = cos^2((t + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2), clamped to [1e-4, 0.9999]."""
    xp = array_namespace(t)
    angle = (xp.astype(t, xp.float64) + S) / (1 + S) * math.pi / 2
    return xp.clip(xp.cos(angle) ** 2 / math.cos(S / (1 + S) * math.pi / 2) ** 2, ABAR_MIN, ABAR_MAX)


def network_time(t: Array) -> Array:
    """The time given to a network: the unclamped cosine inverted at abar(t), so 1 -> 0.99358 and 0 -> 0.00226."""
    xp = array_namespace(t)
    root = alpha_bar(t) ** 0.5 * math.cos(S / (1 + S) * math.pi / 2)
    return xp.astype((1 + S) * (2 / math.pi) * xp.acos(root) - S, xp.float32)


def log_snr(t: Array) -> Array:
    """ln(abar / (1 - abar)), from -9.21 at t = 1 to 9.21 at t = 0."""
    xp, abar = array_namespace(t), alpha_bar(t)
    return xp.astype(xp.log(abar / (1 - abar)), xp.float32)


def scales(t: Array) -> tuple[Array, Array]:
    """t [B] -> a, b, each [B, 1, 1, 1]."""
    xp, abar = array_namespace(t), alpha_bar(t)[:, None, None, None]
    return xp.astype(abar**0.5, xp.float32), xp.astype((1 - abar) ** 0.5, xp.float32)


def add_noise(x0: Array, t: Array, eps: Array) -> Array:
    """x_t = a x0 + b eps."""
    a, b = scales(t)
    return a * x0 + b * eps


def x0_and_eps(output: Array, x: Array, t: Array, prediction: str) -> tuple[Array, Array]:
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


def guide(cond: Array, uncond: Array, scale: float, rescale: float = 0.7) -> Array:
    """Classifier-free guidance: uncond + scale (cond - uncond), pulled back towards cond's standard deviation.

    The official implementation takes the deviation over the whole batch, so that an image depends on its neighbours;
    here it is taken per image. Source: gdf/__init__.py (cfg_rho); Lin et al. 2023, section 3.4.
    """
    xp = array_namespace(cond)
    guided = uncond + scale * (cond - uncond)
    std = [xp.std(part, axis=(1, 2, 3), correction=1, keepdims=True) for part in (cond, guided)]
    return rescale * guided * std[0] / xp.clip(std[1], 1e-12, None) + (1 - rescale) * guided


@overload
def sample(
    denoiser: Denoiser,
    x: Array,
    steps: int,
    generators: Sequence[Generator],
    eta: float = 1.0,
    progress: Callable[[int], None] | None = None,
    stop: None = None,
) -> Array: ...


@overload
def sample(
    denoiser: Denoiser,
    x: Array,
    steps: int,
    generators: Sequence[Generator],
    eta: float = 1.0,
    progress: Callable[[int], None] | None = None,
    *,
    stop: int,
) -> tuple[Array, Array]: ...


def sample(
    denoiser: Denoiser,
    x: Array,
    steps: int,
    generators: Sequence[Generator],
    eta: float = 1.0,
    progress: Callable[[int], None] | None = None,
    stop: int | None = None,
) -> Array | tuple[Array, Array]:
    """Sample a latent: start from white noise x [B, 4, h, w] at t = 1 and denoise it in equal steps of t.

    Args:
        steps: number of network evaluations, 1 or more; the x0 of the last one is returned.
        generators: one per picture, so that the result does not depend on the batch. `draw_noise` makes the first x.
        eta: 1 is DDPM (ancestral), 0 is DDIM (deterministic after the first noise).
        progress: called with the number of finished steps.
        stop: take only this many steps (fewer than `steps`) and return (x_t, t [B]), from where training goes on.
    Source: gdf/samplers.py; Song et al. 2021, equations 12 and 16.
    """
    xp, ts = array_namespace(x), np.linspace(1, 0, steps + 1)
    for i in range(steps):
        t = xp.full((len(x),), float(ts[i]), dtype=xp.float64, device=x.device)
        if i == stop:
            return x, t
        x0, eps = denoiser(x, t)
        if progress:
            progress(i + 1)
        if i + 1 == steps:
            return x0
        x = step_to(x0, eps, float(ts[i]), float(ts[i + 1]), draw_noise(x, generators) if eta else None, eta)
    raise ValueError(f"sampling needs at least one step, not {steps}")


def step_to(x0: Array, eps: Array, t: float, s: float, noise: Array | None, eta: float) -> Array:
    """Step from time t to s < t: a_s x0 + sqrt(b_s^2 - sigma^2) eps + sigma noise."""
    abar_t, abar_s = (alpha_bar(np.asarray(time)).item() for time in (t, s))
    sigma = eta * math.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    x = math.sqrt(abar_s) * x0 + math.sqrt(max(1 - abar_s - sigma**2, 0.0)) * eps
    return x if noise is None else x + sigma * noise
