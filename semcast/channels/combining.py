"""Maximum ratio combining of several receptions of one transmission: the SNRs of the copies add up."""

import torch

from ..errors import InputError
from .base import Received

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
    exact = torch.stack(torch.broadcast_tensors(*[(r.noise_var == 0) & (r.h != 0) for r in receptions])).any(dim=0)
    weighted, total = torch.zeros(()), torch.zeros(())
    for y, h, noise_var in receptions:
        y, h, noise_var = y.to(torch.complex128), h.to(torch.complex128), noise_var.double()
        weight = torch.where(exact, (noise_var == 0).double(), 1 / noise_var.masked_fill(noise_var == 0, torch.inf))
        weighted = weighted + weight * h.conj() * y
        total = total + weight * h.abs().square()
    y, noise_var = (weighted / total).to(receptions[0].y.dtype), torch.where(exact, 0, 1 / total).float()
    lost = ~(y.isfinite() & noise_var.isfinite())
    if lost.any() or noise_var.shape[1] > 1:
        noise_var = noise_var.expand(lost.shape).masked_fill(lost, torch.inf)
    return Received(y.masked_fill(lost, 0), torch.ones_like(y[:, :1]), noise_var)


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
            if first.any() and torch.equal(first, second):
                raise InputError(f"{names[i]} and {name} are the same reception, which counts once; leave one out")
            if disagreement(receptions[i], receptions[j]) < DISAGREEMENT_MIN:
                raise InputError(
                    f"{names[i]} and {name} carry the same noise, so they add nothing; simulate with another --seed"
                )


def disagreement(a: Received, b: Received) -> float:
    """Mean |y_a / h_a - y_b / h_b|^2 relative to its expectation for independent noises with the given variances."""
    gap = (a.y / a.h - b.y / b.h).abs().square()
    expected = a.noise_var / a.h.abs().square() + b.noise_var / b.h.abs().square()
    fine = (expected > 0) & expected.isfinite() & gap.isfinite()
    return (gap / expected)[fine].mean().item() if fine.any() else 1.0
