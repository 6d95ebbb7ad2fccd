"""OFDM over the 3GPP channels TDL-A .. E and CDL-A .. E (TR 38.901), one slot of 14 OFDM symbols per picture.

The k symbols are interleaved and fill the data part of a grid [14, subcarriers], one OFDM symbol after the other; the
last places stay empty. Pilots fill whole OFDM symbols, at 5G's DM-RS positions. Sionna draws the channel's paths. Grid,
pilots, estimators and equaliser are implemented here, in torch as Sionna is; the tests compare the estimators with
Sionna's.

The receiver knows noise_var and the statistics of the channel: unit power, Doppler spread, and for `lmmse` the power
delay profile. It returns y = x + e with Var(e) = noise_var per symbol. This includes the estimation error at any speed:
weights and error of the linear estimate follow from the Doppler spectrum. An error variance computed from the noise of
the pilots alone would be ten times too small at 120 m/s.

Two effects are not simulated: interference between subcarriers, which has (2 pi f_D T)^2 / 24 of the signal's power
(Li & Cimini 2001; -24 dB at 120 m/s and 3.5 GHz), and echoes beyond the cyclic prefix. For CDL the receiver assumes an
isotropic Doppler spectrum and TDL's profile; at 120 m/s it reports up to 1.6 times too much noise.
"""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from ..arrays import Array, array_namespace
from ..errors import InputError
from .base import Received, ones, white_noise
from .erasure import deinterleave, interleaver
from .sionna import keep_random_state, sionna

if TYPE_CHECKING:
    from sionna.phy.channel.tr38901 import CDL, TDL

SYMBOLS = 14  # OFDM symbols in a slot
SPACING_HZ = 30e3
PREFIX = 9 / 128  # length of 5G's normal cyclic prefix over the useful part
PILOTS = {1: (2,), 2: (2, 11), 3: (2, 7, 11), 4: (2, 5, 8, 11)}  # TS 38.211, table 7.4.1.1.2-3, type A
MAX_DOPPLER_HZ = 3000  # a tenth of the spacing, where interference between subcarriers is -18 dB
MIN_SUBCARRIERS = 12  # one resource block
LIGHT_MPS = 299_792_458


class Grid(NamedTuple):
    """The layout of a slot."""

    subcarriers: int
    prefix: int  # samples
    pilots: tuple[int, ...]  # indices of the OFDM symbols that are pilots

    @property
    def uses(self) -> int:
        """Complex samples sent."""
        return SYMBOLS * (self.subcarriers + self.prefix)

    @property
    def data(self) -> list[int]:
        """Indices of the OFDM symbols that carry data."""
        return [t for t in range(SYMBOLS) if t not in self.pilots]

    @property
    def symbol_s(self) -> float:
        """Duration of an OFDM symbol with its prefix."""
        return (1 + self.prefix / self.subcarriers) / SPACING_HZ


def make_grid(k: int, pilots: int) -> Grid:
    """The smallest grid with room for k symbols."""
    subcarriers = max(MIN_SUBCARRIERS, -(-k // (SYMBOLS - pilots)))
    return Grid(subcarriers, math.ceil(PREFIX * subcarriers), PILOTS[pilots])


def ofdm_uses(k: int, pilots: int, **_) -> int:
    """Complex channel uses for k symbols: all samples sent, including pilots and cyclic prefix."""
    return make_grid(k, pilots).uses


def ofdm(
    x: Array,
    snr_db: float | Array,
    generators: Sequence[Generator],
    profile: str,
    delay_spread_ns: float,
    speed_mps: float,
    carrier_ghz: float,
    estimation: str,
    pilots: int,
) -> Received:
    """Send x [B, K] and equalise: y = x + e in the order of x, h = 1, noise_var = Var(e) [B, K].

    Args:
        snr_db: Es/N0 of a data symbol at the antenna, averaged over fading; pilots have the same energy.
        profile: "tdl-a" .. "tdl-e", "cdl-a" .. "cdl-e".
        estimation: "ls" interpolates in time between pilots of the same subcarrier; "lmmse" uses all pilots for every
            place; "perfect" knows the channel.

    Raises:
        InputError: the Doppler shift is too large for this model, or Sionna is not installed.
    """
    doppler_hz = speed_mps / LIGHT_MPS * carrier_ghz * 1e9
    if doppler_hz > MAX_DOPPLER_HZ:
        raise InputError(
            f"speed_mps and carrier_ghz give a Doppler shift of {doppler_hz:.0f} Hz; "
            f"the model holds up to {MAX_DOPPLER_HZ} Hz"
        )
    grid = make_grid(x.shape[1], pilots)
    xp = array_namespace(x)
    places = xp.zeros((len(x), SYMBOLS * grid.subcarriers), dtype=x.dtype)
    n, noise_var = (torch.from_numpy(np.array(part)) for part in white_noise(places, snr_db, generators))
    n, noise_var = n.view(-1, SYMBOLS, grid.subcarriers), noise_var[..., None]  # [B, 14, F], [B, 1, 1]
    model = paths(profile, delay_spread_ns, carrier_ghz, speed_mps)
    gains = draw_gains(model, grid, generators)  # [B, 14, F]
    if estimation == "perfect":
        estimate, error = gains, torch.zeros_like(noise_var)
    else:
        seen = gains[:, grid.pilots] + n[:, grid.pilots]  # [B, P, F], pilots of value 1
        statistics = time_correlation(profile, grid, carrier_ghz, speed_mps)
        if estimation == "ls":
            estimate, error = interpolate(seen, noise_var, statistics, grid.pilots)
        else:
            modes, powers = frequency_modes(profile, delay_spread_ns, grid.subcarriers)
            estimate, error = lmmse(seen, noise_var, statistics, grid.pilots, modes, powers)
    sent = torch.zeros(len(x), len(grid.data) * grid.subcarriers, dtype=torch.complex64)
    sent[:, : x.shape[1]] = torch.from_numpy(np.asarray(x)[:, interleaver(x.shape[1])])
    h, estimate = gains[:, grid.data].flatten(1), estimate[:, grid.data].flatten(1)  # [B, data]
    power = estimate.abs().square().clamp_min(1e-9)
    equalised = estimate.conj() * (h * sent + n[:, grid.data].flatten(1)) / power
    told = (noise_var + error).expand_as(n)[:, grid.data].flatten(1) / power
    y, told = (deinterleave(xp.asarray(t[:, : x.shape[1]].numpy())) for t in (equalised, told))
    return Received(y, ones(x), told)


@functools.lru_cache(maxsize=32)
def paths(profile: str, delay_spread_ns: float, carrier_ghz: float, speed_mps: float) -> "TDL | CDL":
    """Sionna's path generator for "tdl-a" .. "cdl-e", on the CPU."""
    kind, letter = profile.split("-")
    return (tdl if kind == "tdl" else cdl)(letter, delay_spread_ns, carrier_ghz, speed_mps)


def tdl(letter: str, delay_spread_ns: float, carrier_ghz: float, speed_mps: float) -> "TDL":
    sionna()
    from sionna.phy.channel.tr38901 import TDL

    with keep_random_state():
        return TDL(letter.upper(), **physical(delay_spread_ns, carrier_ghz, speed_mps))


def cdl(letter: str, delay_spread_ns: float, carrier_ghz: float, speed_mps: float) -> "CDL":
    sionna()
    from sionna.phy.channel.tr38901 import CDL, AntennaArray

    settings = physical(delay_spread_ns, carrier_ghz, speed_mps)
    with keep_random_state():
        antenna = AntennaArray(
            1, 1, "single", "V", "omni", carrier_frequency=settings["carrier_frequency"], device="cpu"
        )
        return CDL(letter.upper(), ut_array=antenna, bs_array=antenna, direction="uplink", **settings)


def physical(delay_spread_ns: float, carrier_ghz: float, speed_mps: float) -> dict[str, Any]:
    """The arguments that Sionna's TDL and CDL have in common."""
    return dict(
        delay_spread=delay_spread_ns * 1e-9,
        carrier_frequency=carrier_ghz * 1e9,
        min_speed=speed_mps,
        max_speed=speed_mps,
        device="cpu",
    )


def draw_gains(model: "TDL | CDL", grid: Grid, generators: Sequence[Generator]) -> Tensor:
    """Draw frequency responses [B, 14, F], E|h|^2 = 1, constant within an OFDM symbol; row i from generators[i]."""
    from sionna.phy import config

    gains, delays = [], []
    with keep_random_state():  # config.seed also seeds torch
        before = config.seed
        for g in generators:
            config.seed = int(g.integers(2**31))
            a, tau = model(1, SYMBOLS, 1 / grid.symbol_s)
            gains.append(a.flatten(0, 4)[0])  # [paths, 14]
            delays.append(tau.flatten())
        config.seed = before
    frequency = (torch.arange(grid.subcarriers) - grid.subcarriers // 2) * SPACING_HZ
    phase = -2 * math.pi * torch.stack(delays)[..., None] * frequency  # [B, paths, F]
    return torch.stack(gains).mT @ torch.polar(torch.ones_like(phase), phase)


@functools.lru_cache(maxsize=32)
def time_correlation(profile: str, grid: Grid, carrier_ghz: float, speed_mps: float) -> Tensor:
    """E[h(t) conj(h(u))] [14, 14]: J0 for scattered paths, a single Doppler shift for the direct path of D and E."""
    doppler = 2 * math.pi * speed_mps / LIGHT_MPS * carrier_ghz * 1e9  # radian / s
    lag = torch.arange(SYMBOLS, dtype=torch.float64) * grid.symbol_s * doppler
    lag = lag[:, None] - lag
    model = tdl(profile[-1], 100.0, carrier_ghz, speed_mps)
    direct = float(model.mean_power_los) if model.los else 0.0
    scattered = (1 - direct) * torch.special.bessel_j0(lag)
    line_of_sight = direct * torch.polar(torch.ones_like(lag), lag * 0.7)  # 0.7: TR 38.901, 7.7.2
    return (scattered + line_of_sight).to(torch.complex64)


@functools.lru_cache(maxsize=32)
def frequency_modes(profile: str, delay_spread_ns: float, subcarriers: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors [F, L] and eigenvalues [L] of the correlation over frequency, at most one per path."""
    model = tdl(profile[-1], delay_spread_ns, 3.5, 0.0)
    frequency = torch.arange(subcarriers, dtype=torch.float64)[:, None] * SPACING_HZ
    phase = -2 * math.pi * frequency * model.delays.double()
    modes, roots, _ = torch.linalg.svd(
        torch.polar(model.mean_powers.double().sqrt().expand_as(phase), phase), full_matrices=False
    )
    return modes.to(torch.complex64), roots.square().float()


def interpolate(seen: Tensor, noise_var: Tensor, correlation: Tensor, pilots: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Interpolate the least-squares estimates at the pilots linearly in time, then scale by their reliability.

    Given the interpolated estimate g, the channel is c g plus an error of variance 1 - |E[h conj(g)]|^2 / E|g|^2, where
    c = E[h conj(g)] / E|g|^2 follows from the correlation over time. This holds at any speed.

    Args:
        seen: [B, P, F], noise_var [B, 1, 1], correlation [14, 14].

    Returns:
        Estimate [B, 14, F] and error variance [B, 14, 1].
    """
    weights = line_weights(pilots).to(seen.device, seen.dtype)  # [14, P]
    cross = (correlation[:, pilots] * weights).sum(dim=1).view(1, -1, 1)  # E[h conj(g)]
    among = correlation[list(pilots)][:, pilots]
    power = torch.einsum("tp,pq,tq->t", weights, among, weights).real.view(1, -1, 1)
    power = power + noise_var * weights.abs().square().sum(dim=1).view(1, -1, 1)
    return cross / power * (weights @ seen), (1 - cross.abs().square() / power).clamp_min(0)


def line_weights(pilots: tuple[int, ...]) -> Tensor:
    """Weights [14, P]: linear between neighbouring pilots, and the nearest pilot before the first or after the last."""
    weights = torch.zeros(SYMBOLS, len(pilots))
    for t in range(SYMBOLS):
        inside = min(max(t, pilots[0]), pilots[-1])
        right = next(i for i, p in enumerate(pilots) if p >= inside)
        left = right if pilots[right] == inside else right - 1
        share = (inside - pilots[left]) / (pilots[right] - pilots[left]) if left != right else 0.0
        weights[t, left] += 1 - share
        weights[t, right] += share
    return weights


def lmmse(
    seen: Tensor, noise_var: Tensor, correlation: Tensor, pilots: tuple[int, ...], modes: Tensor, powers: Tensor
) -> tuple[Tensor, Tensor]:
    """The best linear estimate over time and frequency together, for separable statistics.

    Over frequency the channel is a sum of a few independent modes; each is a process in time that is estimated from P
    pilots. The result is exact and takes only [P, P] matrices.

    Args:
        seen: [B, P, F], noise_var [B, 1, 1], correlation [14, 14], modes [F, L], powers [L].

    Returns:
        Estimate [B, 14, F] and error variance [B, 14, F].
    """
    among = powers[:, None, None] * correlation[list(pilots)][:, pilots]  # [L, P, P]
    cross = powers[:, None, None] * correlation[:, pilots]  # [L, 14, P]
    noise = noise_var[..., None] * torch.eye(len(pilots), device=seen.device)  # [B, 1, P, P]
    weights = torch.linalg.solve(among + noise, cross.expand(len(seen), -1, -1, -1), left=False)  # [B, L, 14, P]
    amplitude = torch.einsum("bltp,bpl->btl", weights, seen @ modes.conj())
    error = powers - torch.einsum("bltp,ltp->btl", weights, cross.conj()).real  # [B, 14, L]
    return amplitude @ modes.T, (error @ modes.abs().square().T).clamp_min(0)
