"""The bench's bar: how long a bench will still take, and how it is shown."""

import io
import sys

import numpy as np
import pytest

from semcast.bench.progress import Tally, remaining_s, work_bar
from semcast.bench.systems import family
from semcast.bench.unit import Setting, Unit

# Seconds of a row of 256 x 256 pixels on two cores of an EPYC: the first and later draws of an SNR without slow metrics,
# then with them.
RECORDED_S = {
    "semcast": (0.87, 0.76, 4.4, 3.1),
    "semcast-10steps": (2.2, 2.1, 3.8, 3.6),
    "semcast-digital": (0.64, 0.42, 2.4, 0.6),
    "stage-a": (0.33, 0.19, 2.0, 1.9),
    "downscale": (0.15, 0.14, 1.8, 1.9),
    "deepjscc": (0.21, 0.17, 1.9, 2.0),
    "jpeg2000-ldpc": (0.57, 0.01, 2.1, 0.03),
    "hevc-ldpc": (0.21, 0.001, 2.0, 0.02),
    "vvc-ldpc": (2.3, 0.04, 4.2, 0.03),
    "vvc-capacity": (0.42, 0.01, 5.8, 0.01),
    "avif-capacity": (0.5, 0.01, 2.7, 0.01),
    "planted:SLOW": (9.0, 9.0, 11.0, 11.0),
}
OURS = tuple(name for name in RECORDED_S if ":" not in name)


@pytest.mark.parametrize(
    "systems, pictures, snrs, draws, workers, speed, slow_metrics",
    [
        (OURS, 2, (1.0, 10.0), 1, 2, 1.0, True),  # as the smoke run
        (OURS, 2, (1.0, 10.0), 1, 2, 0.2, False),
        (OURS, 24, (1.0, 5.0, 10.0), 3, 2, 1.0, True),
        (OURS, 24, (1.0, 5.0, 10.0), 3, 16, 5.0, True),
        (OURS, 24, (1.0, 5.0, 10.0), 3, 16, 1.0, False),
        (("semcast", "vvc-ldpc"), 10, (-5.0, 0.0, 10.0, 20.0), 5, 1, 1.0, True),
        (("downscale", "planted:SLOW"), 12, (1.0, 10.0), 2, 1, 1.0, True),  # one that the table does not know
    ],
)
def test_the_estimate_is_within_a_factor_of_two_after_an_eighth(
    systems, pictures, snrs, draws, workers, speed, slow_metrics
):
    rng, units, families = np.random.default_rng(0), [], {}
    for system in systems:
        families.setdefault(family(system), []).append(system)
    for index in range(pictures):
        for members in families.values():
            jobs = tuple((name, snr, tuple(range(draws))) for name in members for snr in snrs)
            units.append(Unit(f"{index}", "ab", 288, jobs, Setting(headline=(10.0,)), False, index, megapixels=0.0655))
    free, warm, finished = [0.0] * workers, set(), []  # the first free worker takes the next unit
    for place, unit in enumerate(units):
        worker = free.index(min(free))
        rows = []
        for name, snr_db, wanted in unit.jobs:
            for draw in wanted:
                headline = snr_db == 10.0 and draw == 0
                seconds = RECORDED_S[name][2 * headline + (draw > 0)]
                seconds *= speed * rng.lognormal(sigma=0.3) * (0.5 if headline and not slow_metrics else 1)
                cold = (worker, name) not in warm
                free[worker] += seconds + speed * cold * (1 if free[worker] else 15)  # a worker has to start, too
                rows.append(({"system": name, "snr_db": snr_db, "draw": draw}, None if cold else seconds))
                warm.add((worker, name))
        finished.append((free[worker], place, rows))
    tally, end, estimates, done = Tally(units), max(free), [], 0
    total = sum(len(rows) for *_, rows in finished)
    for time_s, place, rows in sorted(finished, key=lambda item: item[0]):
        for row, seconds in rows:
            tally.add(place, row, seconds)
        done += len(rows)
        estimates.append((time_s, remaining_s(tally.left, tally.measured, workers)))
    assert done == total and estimates[-1][1] == pytest.approx(0, abs=1e-6)
    ratios = [estimate_s / (end - time_s) for time_s, estimate_s in estimates if 0.125 <= time_s / end <= 0.8]
    assert ratios and 0.5 < min(ratios) <= max(ratios) < 2


def test_the_bar_shows_the_estimate(monkeypatch):
    import tqdm

    now, shown = [0.0], []
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    display = lambda self, *a, **k: shown.append(self.format_meter(**self.format_dict))
    monkeypatch.setattr(tqdm.tqdm, "display", display)

    class Terminal(io.StringIO):
        isatty = lambda self: True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with work_bar("out") as tick:
        for now[0], left_s, rows in ((10.0, 90.0, 1), (20.0, 80.0, 30), (50.0, 150.0, 38)):
            tick(left_s, rows, 40)
            assert shown[-1].startswith(f"out {rows}/40 rows:  ")
    assert " 10%|" in shown[1] and shown[1].endswith("00:10<01:30")
    assert " 25%|" in shown[3] and shown[3].endswith("00:50<02:30")
