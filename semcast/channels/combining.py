"""Maximum ratio combining of several receptions of one transmission: the SNRs of the copies add up."""

import math

import numpy as np

from ..arrays import array_namespace
from ..errors import InputError
from .base import Received, ones

# Two receptions with a smaller `disagreement` are taken to share their noise. The same seed gives at most 0.04 at SNRs
# up to 2.5 dB apart; independent noise gives about 1, or 0.1 if the receiver is told 10 dB too much noise.
DISAGREEMENT_MIN = 0.05


def combine(receptions: list[Received]) -> Received:
    """Sum conj(h) y / noise_var for every symbol, normalised -> y [B, K], h = 1 [B, 1], noise_var [B, K] or [B, 1].

    The noises must be independent. n copies over AWGN gain 10 log10(n) dB; the distortion of a clipping amplifier is
    the same in all copies and does not average out. An erased symbol adds nothing, and stays erased if every copy lost
    it. Where copies have no noise, only they are used. A single reception is returned unchanged.

    Raises:
        InputError: there is no reception, their numbers of symbols differ, or one was given twice.

    Source: Brennan 1959, "Linear diversity combining techniques".
    """
    check(receptions, [f"reception {i + 1}" for i in range(len(receptions))])
    if len(receptions) == 1:
        return receptions[0]
    xp = array_namespace(receptions[0].y)
    exact = xp.zeros((1, 1), dtype=xp.bool)
    for _, h, noise_var in receptions:
        exact = exact | ((noise_var == 0) & (h != 0))
    weighted, total = 0.0, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # a symbol lost in every copy is 0 / 0
        for y, h, noise_var in receptions:
            y, h = (xp.astype(part, xp.complex128) for part in (y, h))
            noise_var = xp.astype(noise_var, xp.float64)
            weight = 1 / xp.where(noise_var == 0, math.inf, noise_var)
            weight = xp.where(exact, xp.astype(noise_var == 0, xp.float64), weight)
            weighted = weighted + weight * xp.conj(h) * y
            total = total + weight * xp.abs(h) ** 2
        y, noise_var = weighted / total, xp.where(exact, 0.0, 1 / total)
    lost = ~(xp.isfinite(y) & xp.isfinite(noise_var))
    if xp.any(lost) or noise_var.shape[1] > 1:
        noise_var = xp.where(lost, math.inf, noise_var)
    y = xp.astype(xp.where(lost, xp.zeros_like(y), y), receptions[0].y.dtype)
    return Received(y, ones(y), xp.astype(noise_var, xp.float32))


def check(receptions: list[Received], names: list[str]) -> None:
    """Refuse receptions that cannot be combined or would count twice; `names` are for the messages."""
    if not receptions:
        raise InputError("no reception to combine; give one at least")
    for j, name in enumerate(names):
        for i in range(j):
            first, second = receptions[i].y, receptions[j].y
            if first.shape != second.shape:
                raise InputError(
                    f"{names[i]} has {first.shape[1]} symbols and {name} {second.shape[1]}; "
                    "combine receptions of one picture"
                )
            if first.any() and (first == second).all():
                raise InputError(f"{names[i]} and {name} are the same reception, which counts once; leave one out")
            if disagreement(receptions[i], receptions[j]) < DISAGREEMENT_MIN:
                raise InputError(
                    f"{names[i]} and {name} carry the same noise, so they add nothing; simulate with another --seed"
                )


def disagreement(a: Received, b: Received) -> float:
    """Mean |y_a / h_a - y_b / h_b|^2 relative to its expectation for independent noises with the given variances."""
    xp = array_namespace(a.y)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = xp.abs(a.y / a.h - b.y / b.h) ** 2
        expected = xp.broadcast_to(a.noise_var / xp.abs(a.h) ** 2 + b.noise_var / xp.abs(b.h) ** 2, gap.shape)
    fine = (expected > 0) & xp.isfinite(expected) & xp.isfinite(gap)
    return float(xp.mean(gap[fine] / expected[fine])) if fine.any() else 1.0
