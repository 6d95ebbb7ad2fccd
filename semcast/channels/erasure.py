"""Erasures: AWGN with lost symbols. A lost symbol has y = 0 and noise_var = inf; the receiver knows which are lost."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from ..arrays import Array, array_namespace
from .base import Received, uniform
from .noise import awgn


def erasure(x: Array, snr_db: float | Array, generators: Sequence[Generator], rate: float) -> Received:
    """AWGN in which every symbol is lost independently with probability `rate`."""
    return erase(awgn(x, snr_db, generators), uniform(x, x.shape[1], generators) < rate)


def burst_erasure(
    x: Array,
    snr_db: float | Array,
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
    rows = np.stack([bursts(count, rate, burst_symbols, g) for g in generators])
    lost = array_namespace(x).asarray(rows, device=x.device)
    return erase(received, deinterleave(lost) if interleave == "yes" else lost)


def bursts(count: int, rate: float, burst_symbols: float, generator: Generator) -> np.ndarray:
    """Which of `count` symbols are lost, bool [count]: runs of geometric lengths, good and bad in turn."""
    first, *u = generator.random(count + 1)
    bad = (int(first < rate) + np.arange(count)) % 2  # of each run
    end = np.array([max(rate / (1 - rate), 1e-12), 1.0]) / burst_symbols  # chance that a good or bad run ends
    with np.errstate(divide="ignore"):  # bursts of one symbol end at once: log 0
        runs = np.ceil(np.log1p(-np.array(u)) / np.log1p(-end[bad])).clip(1, count)
    return np.repeat(bad == 1, runs.astype(int))[:count]


def packet_erasure(
    x: Array,
    snr_db: float | Array,
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
    lost = array_namespace(x).repeat(packets, packet_symbols, axis=1)[:, :count]
    return erase(received, deinterleave(lost) if interleave == "yes" else lost)


def erase(received: Received, lost: Array) -> Received:
    """Mark the symbols where lost [B, K] is true as lost."""
    y, h, noise_var = received
    xp = array_namespace(y)
    return Received(xp.where(lost, xp.zeros_like(y), y), h, xp.where(lost, math.inf, noise_var))


@lru_cache(maxsize=64)
def interleaver(count: int) -> np.ndarray:
    """The order [count] in which symbols are sent: the i-th symbol sent is x[order[i]].

    Both ends compute it, so it costs no bits: order sorts s_1 .. s_count, where s_0 = count and
    s_i = (6364136223846793005 s_(i-1) + 1442695040888963407) mod 2^64. The constants are those of Knuth's MMIX.
    """
    state, keys = count, []
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        keys.append(state)
    return np.argsort(np.array(keys, np.uint64))


def deinterleave(sent: Array) -> Array:
    """Bring values [B, K] from the order of sending into the order of x."""
    xp = array_namespace(sent)
    return xp.take(sent, xp.asarray(np.argsort(interleaver(sent.shape[1])), device=sent.device), axis=1)
