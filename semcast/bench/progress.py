"""How long a run of the bench still takes, and the bar that shows it.

Rows cost between milliseconds and a minute: codecs search and remember what they have encoded, and slow metrics run at
some SNRs only. Rows are therefore counted by kind. A kind that has been measured costs what it did. One that has not
costs what the table below expects of it, times the factor by which the table was wrong about the others.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from .systems import family
from .unit import Unit, is_headline

# Seconds a megapixel on one core of an EPYC of 2024, by name or family; a payload that arrives again is remembered.
SYSTEM_S = {
    "semcast": 8.0,
    "semcast-2steps": 12.0,
    "semcast-4steps": 19.0,
    "semcast-10steps": 30.0,
    "stage": 2.0,
    "mean": 0.1,
    "downscale": 0.2,
    "deepjscc": 1.0,
}
CODEC_S = {"jpeg2000": 5.0, "hevc": 4.0, "vvc": 35.0, "avif": 12.0}
UNKNOWN_S = 6.0
LATER_DRAW_S = 0.3
METRICS_S = {False: 2.2, True: 28.0}  # at headline SNRs: True


class Kind(NamedTuple):
    """Rows that cost about the same for equal pictures."""

    system: str
    headline: bool
    first: bool  # draw of its picture and SNR in this run


Measured = Mapping[Kind, tuple[float, float]]  # seconds and megapixels of the rows that were measured


def remaining_s(left: Mapping[Kind, float], measured: Measured, workers: int) -> float:
    """The seconds until the rows that are left are done.

    Args:
        left: megapixels of the rows, by kind.
        workers: how many processes share the work.
    """
    factors = {h: factor({k: v for k, v in measured.items() if k.headline == h}) for h in (False, True)}
    known = factor(measured) or 1.0
    total = 0.0
    for kind, megapixels in left.items():
        if kind in measured:
            seconds, of = measured[kind]
            total += megapixels * seconds / of
        else:
            total += megapixels * expected_s(kind) * (factors[kind.headline] or known)
    return total / workers


def factor(measured: Measured) -> float | None:
    """By how much rows have taken longer than was expected; None if there are none."""
    expected = sum(expected_s(kind) * megapixels for kind, (_, megapixels) in measured.items())
    return sum(seconds for seconds, _ in measured.values()) / expected if expected else None


def expected_s(kind: Kind) -> float:
    """The table's seconds a megapixel."""
    name, kin = kind.system.partition("@")[0], family(kind.system)
    if kin in CODEC_S and not kind.first:
        return LATER_DRAW_S
    seconds = SYSTEM_S | CODEC_S
    return METRICS_S[kind.headline] + seconds.get(name, seconds.get(kin, UNKNOWN_S))


class Tally:
    """What is left of a run, and what its rows have taken so far."""

    def __init__(self, units: Sequence[Unit]):
        self.units = units
        self.left: dict[Kind, float] = defaultdict(float)
        self.measured: dict[Kind, tuple[float, float]] = {}
        for unit in units:
            for system, snr_db, draws in unit.jobs:
                for draw in draws:
                    self.left[kind_of(unit, system, snr_db, draw)] += unit.megapixels

    def add(self, place: int, row: dict, seconds: float | None) -> None:
        """Count a row of the unit at a place. seconds: what it took; None if a warm-up is in that."""
        unit = self.units[place]
        kind = kind_of(unit, row["system"], row["snr_db"], row["draw"])
        self.left[kind] -= unit.megapixels
        if seconds is not None:
            before_s, before = self.measured.get(kind, (0.0, 0.0))
            self.measured[kind] = before_s + seconds, before + unit.megapixels


def kind_of(unit: Unit, system: str, snr_db: float, draw: int) -> Kind:
    draws = next(draws for name, snr, draws in unit.jobs if (name, snr) == (system, snr_db))
    return Kind(system, is_headline(unit.setting, snr_db, draw), draw == draws[0])


@contextmanager
def work_bar(name: str, quiet: bool = False) -> Iterator[Callable[[float, int, int], None]]:
    """Yields a function of the seconds left, the rows done and the rows to do; a bar when a person is watching."""
    from tqdm import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(desc=name, total=1.0, bar_format=form, leave=False, disable=quiet or None, dynamic_ncols=True) as bar:

        def tick(left_s: float, done: int, todo: int) -> None:
            if bar.disable:
                return
            elapsed_s = bar.format_dict["elapsed"]
            bar.total = elapsed_s + left_s  # the bar counts seconds, so that its own estimate is this one
            bar.set_description_str(f"{name} {done}/{todo} rows", refresh=False)
            bar.update(elapsed_s - bar.n)

        yield tick
