"""Modulation and coding schemes: how k channel uses are spent, and which scheme suits an SNR (link adaptation)."""

import functools
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .capacity import required_snr_db

BITS = {"qpsk": 2, "16qam": 4, "64qam": 6, "256qam": 8}
CRC_BITS = 24  # CRC-24A, at the end of a transport block
MIN_INFO_BITS = 12  # smallest code block of TS 38.212
TARGET_LOSS = 0.01
SHORT_MARGIN_DB = 0.5  # for blocks shorter than any measured; without it 0.5 to 3 % are lost at 288 and 72 uses
CURVES = Path(__file__).with_name("bler.json")


class Mcs(NamedTuple):
    """Modulation and coding scheme."""

    modulation: str
    rate: Fraction

    def __str__(self) -> str:
        return f"{self.modulation} {self.rate}"


_RATES = {
    "qpsk": "1/5 1/3 1/2 2/3 3/4",
    "16qam": "1/2 2/3 3/4 5/6",
    "64qam": "2/3 3/4 5/6",
    "256qam": "2/3 3/4 5/6 8/9",
}
TABLE = sorted(
    (Mcs(m, Fraction(r)) for m, rates in _RATES.items() for r in rates.split()),
    key=lambda mcs: BITS[mcs.modulation] * mcs.rate,
)


class Plan(NamedTuple):
    """How k uses are spent: all code blocks carry `info_bits`, block i takes uses[i] symbols."""

    payload_bytes: int
    info_bits: int
    uses: tuple[int, ...]


@functools.lru_cache(maxsize=256)
def plan(k: int, mcs: Mcs) -> Plan:
    """Lay out one transport block in exactly k complex uses.

    Raises:
        InputError: k uses cannot carry a byte and its CRC.
    """
    bits = BITS[mcs.modulation]
    limit = 3840 if mcs.rate <= Fraction(1, 4) else 8448  # base graph 2 or 1
    blocks = 1
    # info_bits is rounded up, because 1/5 is the lowest code rate
    while (info_bits := math.ceil(mcs.rate * bits * -(-k // blocks))) > limit:
        blocks += 1
    uses = tuple(k // blocks + (i < k % blocks) for i in range(blocks))
    payload_bytes = (blocks * info_bits - CRC_BITS) // 8
    if payload_bytes < 1 or info_bits < MIN_INFO_BITS:
        raise InputError(f"{k} channel uses are too few for {mcs}: they carry no byte beside its CRC")
    assert sum(uses) == k and 8 * payload_bytes + CRC_BITS <= blocks * info_bits
    return Plan(payload_bytes, info_bits, uses)


def choose(k: int, snr_db: float, loss: float = TARGET_LOSS) -> Mcs | None:
    """Return the scheme that carries most in k uses of AWGN with at most `loss` of the blocks lost, or None.

    On a fading channel this is too optimistic, unless snr_db is the `capacity.effective_snr_db` of the reception.
    """
    for mcs in reversed(TABLE):
        try:
            if threshold_db(k, mcs, loss) <= snr_db:
                return mcs
        except InputError:  # too few uses
            continue
    return None


@functools.lru_cache(maxsize=1024)
def threshold_db(k: int, mcs: Mcs, loss: float = TARGET_LOSS) -> float:
    """SNR on AWGN at which a block of k uses is lost with probability `loss`, from measured curves (`bler.json`).

    For a k that was not measured it is the normal approximation, plus the largest distance of any measured k from it,
    plus half a dB if every measured k is longer. Each of C code blocks may be lost with probability loss / C.
    """
    curves = measured(mcs)
    if k in curves:
        return crossing_db(curves[k], loss)
    distance = max(crossing_db(points, loss) - bound_db(at, mcs, loss) for at, points in curves.items())
    return bound_db(k, mcs, loss) + distance + (SHORT_MARGIN_DB if k < min(curves) else 0)


def bound_db(k: int, mcs: Mcs, loss: float) -> float:
    """`threshold_db` of the best possible code, by the normal approximation."""
    _, info_bits, uses = plan(k, mcs)
    return required_snr_db(info_bits, uses[-1], loss / len(uses))


def measured(mcs: Mcs) -> dict[int, tuple]:
    """{k: ((snr_db, blocks, lost), ...)} for the curves that were measured down to a loss below 5 %."""
    curves = {}
    for row in _rows():
        if (row["modulation"], row["rate"]) == (mcs.modulation, str(mcs.rate)):
            curves.setdefault(row["k"], []).append((row["snr_db"], row["blocks"], row["lost"]))
    return {k: tuple(points) for k, points in curves.items() if any(lost < 0.05 * blocks for _, blocks, lost in points)}


@functools.cache
def _rows() -> list[dict]:
    return json.loads(CURVES.read_text())["rows"]


def crossing_db(points: Sequence[tuple[float, int, int]], loss: float) -> float:
    """SNR at which a logistic curve through the counts (snr_db, blocks, lost) falls to `loss`.

    The fit is maximum likelihood by Newton's method, with half a lost block added to each point. Real curves become
    steeper towards low losses and a logistic one does not, so below the measured losses it errs on the safe side.
    """
    snr_db, blocks, lost = np.array(points, dtype=float).T
    lost, blocks = lost + 0.5, blocks + 1.0
    design = np.stack([np.ones_like(snr_db), snr_db - snr_db.mean()])  # [2, points]
    weights = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-(weights @ design)))
        step = np.linalg.solve((design * blocks * p * (1 - p)) @ design.T, design @ (lost - blocks * p))
        weights += step / max(1.0, np.abs(step).max() / 2)
    return float(snr_db.mean() + (math.log(loss / (1 - loss)) - weights[0]) / weights[1])
