"""The channel between the known symbols, and the noise: the linear MMSE estimate, with its statistics learnt first.

The model: the gain of carrier c at time t is a sum over delays of independent Gaussian processes. Their mean powers (by
expectation and maximisation, "sparse Bayesian learning"), one common Doppler spread (by maximum likelihood) and the
noise of every carrier (from what the estimate leaves over) are learnt from the known symbols alone.

Sources: Tipping 2001, "Sparse Bayesian learning and the relevance vector machine"; Edfors et al. 1998, "OFDM channel
estimation by singular value decomposition".
"""

from typing import NamedTuple

import numpy as np

from .demodulate import EARLY, SIZE
from .profiles import PREFIX, Profile

DELAYS = np.arange(-EARLY, PREFIX // 2 + 2)  # of the model's paths, in samples at 4 kHz, from the first path on
DOPPLER_HZ = 2.0 ** np.arange(-5, 4.1, 0.5)  # spreads to choose from, 2 sigma
ROUNDS = 3  # estimate, then learn the noise from what is left over
EM_STEPS = 25
WINDOW = 24  # known symbols at most that one estimate uses
PRIOR = 6.0  # known symbols that the assumption of white noise is worth
OUTLIER = 4.0  # carriers with so much more than the median noise do not count for the mean


class Estimate(NamedTuple):
    """The channel for unit-power symbols at the times asked for."""

    h: np.ndarray  # [S, C] complex
    error_var: np.ndarray  # [S, C], of h
    noise_var: np.ndarray  # [C]
    delay_powers: np.ndarray  # [delays]
    doppler_hz: float


def estimate(profile: Profile, seconds: np.ndarray, gains: np.ndarray, at_s: np.ndarray) -> Estimate:
    """From the gains [P, C] seen at `seconds` [P], those at `at_s` [S]."""
    basis = np.exp(-2j * np.pi / SIZE * profile.bins[:, None] * DELAYS)  # [C, delays]
    noise_var = left_over(basis, gains)
    powers = np.full(DELAYS.size, np.mean(np.abs(gains) ** 2) / DELAYS.size)
    doppler_hz, modes = 0.0, None
    for _ in range(ROUNDS):
        deviation = np.sqrt(noise_var)
        white, weighted = gains / deviation, basis / deviation[:, None]  # now the noise has variance 1
        powers = learn_powers(weighted, white, powers)
        values, modes = np.linalg.eigh((weighted * powers) @ weighted.conj().T)
        strong = values * len(gains) > 0.02
        values, modes = values[strong], modes[:, strong]
        seen = white @ modes.conj()  # [P, modes]
        doppler_hz = learn_doppler(values, seconds, seen)
        fitted, share = smooth(values, seconds, seen, seconds, doppler_hz)
        rest = white - fitted @ modes.T
        leverage = share @ (np.abs(modes) ** 2).T  # [P, C]: a Wiener filter has its own gain as error
        noise_var = noise_var * learn_noise(rest, np.clip(1 - leverage, 0.05, 1))
    assert modes is not None
    fitted, error = smooth(values, seconds, seen, at_s, doppler_hz)
    missing = np.sum(np.abs(weighted) ** 2 * powers, axis=1) - np.abs(modes) ** 2 @ values
    error_var = deviation**2 * (error @ (np.abs(modes) ** 2).T + np.maximum(missing, 0))
    return Estimate(fitted @ modes.T * deviation, error_var, noise_var, powers, doppler_hz)


def left_over(basis: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """A first noise variance [C]: what the delays of the model cannot explain."""
    q = np.linalg.svd(basis, full_matrices=False)
    inside = q.U[:, q.S > 1e-2 * q.S[0]]
    rest = gains - gains @ inside.conj() @ inside.T
    free = np.clip(1 - np.sum(np.abs(inside) ** 2, axis=1), 0.05, 1)
    return np.maximum(learn_noise(rest, np.broadcast_to(free, gains.shape)), 1e-9 * np.mean(np.abs(gains) ** 2))


def learn_noise(rest: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Variance [C] from residuals [P, C] whose own variance is the noise's times `free` [P, C]."""
    power, weight = np.sum(np.abs(rest) ** 2, axis=0), np.sum(free, axis=0)
    each = power / weight
    usual = each <= OUTLIER * np.median(each)
    common = power[usual].sum() / weight[usual].sum()
    return (power + PRIOR * common) / (weight + PRIOR)


def learn_powers(basis: np.ndarray, gains: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Mean power [delays] of each path, from gains [P, C] with noise of variance 1."""
    gram, seen = basis.conj().T @ basis, gains @ basis.conj()  # [delays, delays], [P, delays]
    spread = seen.T.conj() @ seen / len(gains)
    for _ in range(EM_STEPS):
        root = np.sqrt(powers)
        left = np.linalg.inv(np.eye(powers.size) + root[:, None] * gram * root)
        posterior = root[:, None] * left * root
        mean_power = np.einsum("ij,jk,ki->i", posterior, spread.T, posterior).real
        powers = np.maximum(mean_power + np.diag(posterior).real, 1e-12)
    return powers


def correlation(doppler_hz: float, lag_s: np.ndarray) -> np.ndarray:
    """Of a gain with itself after a while, for a Gaussian Doppler spectrum of spread 2 sigma."""
    return np.exp(-0.5 * (np.pi * doppler_hz * lag_s) ** 2)


def learn_doppler(values: np.ndarray, seconds: np.ndarray, seen: np.ndarray) -> float:
    """The most likely spread; `seen` [P, modes] has signal of the powers `values` and noise of variance 1."""
    likelihood = np.zeros(DOPPLER_HZ.size)
    for start in range(0, len(seconds), WINDOW):
        part = slice(start, start + WINDOW)
        lag = seconds[part, None] - seconds[part]
        for i, doppler_hz in enumerate(DOPPLER_HZ):
            turns, basis = np.linalg.eigh(correlation(doppler_hz, lag))
            variance = 1 + values * np.maximum(turns, 0)[:, None]  # [P, modes]
            power = np.abs(basis.T @ seen[part]) ** 2
            likelihood[i] -= np.sum(np.log(variance) + power / variance)
    return float(DOPPLER_HZ[likelihood.argmax()])


def smooth(
    values: np.ndarray, seconds: np.ndarray, seen: np.ndarray, at_s: np.ndarray, doppler_hz: float
) -> tuple[np.ndarray, np.ndarray]:
    """Wiener's estimate [S, modes] of the modes at the times `at_s`, and the variance of its error."""
    out, error = np.empty((at_s.size, values.size), complex), np.empty((at_s.size, values.size))
    hop = WINDOW // 2
    nearest = np.clip(np.searchsorted(seconds, at_s), 0, len(seconds) - 1) // hop
    for block in np.unique(nearest):
        rows = nearest == block
        first = max(0, block * hop - hop // 2)
        part = slice(first, first + WINDOW)
        turns, basis = np.linalg.eigh(correlation(doppler_hz, seconds[part, None] - seconds[part]))
        towards = correlation(doppler_hz, at_s[rows, None] - seconds[part]) @ basis  # [S, P]
        gain = values / (1 + values * np.maximum(turns, 0)[:, None])  # [P, modes]
        out[rows] = towards @ (gain * (basis.T @ seen[part]))
        error[rows] = values * np.maximum(1 - towards**2 @ gain, 0)
    return out, error
