"""Erasures: AWGN with lost symbols. A lost symbol has y = 0 and noise_var = inf; the receiver knows which are lost."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Generator, Tensor

from .base import Received, uniform
from .noise import awgn


def erasure(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], rate: float) -> Received:
    """AWGN in which every symbol is lost independently with probability `rate`."""
    return erase(awgn(x, snr_db, generators), uniform(x, x.shape[1], generators) < rate)


def burst_erasure(
    x: Tensor,
    snr_db: float | Tensor,
    generators: Sequence[Generator],
    rate: float,
    burst_symbols: float,
    interleave: str,
) -> Received:
    """AWGN in which symbols are lost in bursts: a two-state Markov chain, started in its stationary state.

    Args:
        rate: share of lost symbols in the long run.
        burst_symbols: mean of the geometric burst length; gaps have the mean burst_symbols (1 - rate) / rate.
        interleave: "yes" spreads the bursts over the latent (`interleaver`).

    Source: Gilbert 1960, "Capacity of a burst-noise channel", where every symbol is lost in the bad state.
    """
    received, count = awgn(x, snr_db, generators), x.shape[1]
    u = uniform(x, count + 1, generators).double()  # [B, K + 1]: the first state, then the length of each run
    bad = ((u[:, :1] < rate).long() + torch.arange(count, device=x.device)) % 2  # [B, runs]
    end = torch.tensor([max(rate / (1 - rate), 1e-12), 1.0], dtype=torch.float64, device=x.device) / burst_symbols
    runs = (torch.log1p(-u[:, 1:]) / torch.log1p(-end[bad])).ceil().clamp(1, count)  # geometric
    at = torch.arange(count, device=x.device, dtype=torch.float64).expand(len(x), -1).contiguous()
    lost = bad.gather(1, torch.searchsorted(runs.cumsum(dim=1), at, right=True)) == 1
    return erase(received, deinterleave(lost) if interleave == "yes" else lost)


def packet_erasure(
    x: Tensor,
    snr_db: float | Tensor,
    generators: Sequence[Generator],
    rate: float,
    packet_symbols: int,
    interleave: str,
) -> Received:
    """AWGN in which packets of `packet_symbols` consecutive symbols are lost as a whole with probability `rate`.

    The last packet may be shorter. Without interleaving, a packet is a contiguous part of the latent.
    """
    received, count = awgn(x, snr_db, generators), x.shape[1]
    packets = uniform(x, -(-count // packet_symbols), generators) < rate  # [B, packets]
    lost = packets.repeat_interleave(packet_symbols, dim=1)[:, :count]
    return erase(received, deinterleave(lost) if interleave == "yes" else lost)


def erase(received: Received, lost: Tensor) -> Received:
    """Mark the symbols where lost [B, K] is true as lost."""
    y, h, noise_var = received
    return Received(y.masked_fill(lost, 0), h, torch.where(lost, math.inf, noise_var))


@lru_cache(maxsize=64)
def interleaver(count: int) -> Tensor:
    """The order [count] in which symbols are sent: the i-th symbol sent is x[order[i]].

    Both ends compute it, so it costs no bits: order sorts s_1 .. s_count, where s_0 = count and
    s_i = (6364136223846793005 s_(i-1) + 1442695040888963407) mod 2^64. The constants are those of Knuth's MMIX.
    """
    state, keys = count, []
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        keys.append(state)
    return torch.tensor(sorted(range(count), key=keys.__getitem__))


def deinterleave(sent: Tensor) -> Tensor:
    """Bring values [B, K] from the order of sending into the order of x."""
    out = torch.empty_like(sent)
    out[:, interleaver(sent.shape[1]).to(sent.device)] = sent
    return out
