"""Again or more: of which does a picture gain more, the rungs that have arrived sent again, or the next ones?

    python benchmarks/asking.py KODAK --crop 512 --lpips LPIPS --out benchmarks/results/asking.json

A case is a picture, an SNR and a number of rungs that have arrived, all drawn at random. The sender goes on at this SNR
in both ways, for as many channel uses as the rungs allow to be equal, and LPIPS-Alex of both pictures is measured. At the
end: which way is better where, the table of `modulation/reply.py` that fits the rows best, and how often a rule is right.
Given again, the command goes on where it stopped.
"""

import argparse
import itertools
import json
import math
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scripts import command_line, read_pictures, script, summary
from semcast.bench.records import one_row_a_line
from semcast.bench.systems import find_system
from semcast.bench.versions import commit, digest
from semcast.cascade.engine import load_model
from semcast.files import write_text
from semcast.header import RUNGS, Header
from semcast.images import round_8bit
from semcast.link import Link
from semcast.metrics.lpips import LPIPS, load_lpips
from semcast.modulation.reply import AGAIN, AGAIN_BELOW_DB, MORE, round_snr, wish_at
from semcast.randomness import seeded

SNR_DB = -3.0, 20.0
BANDS_DB = -3.0, 3.0, 9.0, 15.0, 21.0  # of the table that is printed
UNEQUAL_MAX = 0.2  # logarithm of the ratio of channel uses below which they count as equal
STEP_DB = 0.5  # between the limits that `fit` tries


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--crop", type=int, help="centre crop to a square of this side, default: whole pictures")
    p.add_argument("--cases", type=int, default=200)
    p.add_argument("--model", default="small")
    p.add_argument("--lpips", type=Path, help="folder of LPIPS weights")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    link, lpips = Link(load_model(args.model)), load_lpips("alex", args.lpips)
    names, pictures = read_pictures(args.data, args.crop)
    system = "semcast-ladder" if args.model == "small" else f"semcast-ladder@{args.model}"
    depends_on = {
        "systems": {system: find_system(system).version()},
        "lpips_alex": digest(lpips.state_dict()),
        "pictures": names,
        "crop": args.crop,
    }
    rows = kept_rows(args.out, depends_on)[: args.cases]
    record = {"schema": 1, "command": command_line(), "commit": commit()} | depends_on
    for index in tqdm(range(len(rows), args.cases), unit="case", initial=len(rows), total=args.cases):
        case = draw(index, len(names))
        rows.append({"image": names[case[0]]} | measure(link, lpips, pictures[case[0]](), *case[1:], seed=index))
        write_text(args.out, one_row_a_line(record | {"rows": rows}))
    for row in (*table(rows), *verdicts(rows)):
        print(json.dumps(row))


def kept_rows(path: Path, depends_on: dict) -> list[dict]:
    """The rows of an earlier run, if all that they depend on is still the same."""
    held = json.loads(path.read_text()) if path.exists() else {}
    return held["rows"] if all(held.get(name) == value for name, value in depends_on.items()) else []


def draw(index: int, n_pictures: int) -> tuple[int, float, int]:
    """A picture, an SNR in dB, and how many rungs have arrived; of all 24, no more can be sent."""
    generator = seeded("asking", index)
    picture, last = generator.integers(n_pictures), generator.integers(1, RUNGS)
    return int(picture), round(float(generator.uniform(*SNR_DB)), 2), int(last)


def ways(header: Header, last: int) -> dict[str, tuple[int, int]]:
    """The rungs that are sent again and the next ones: as many as can be for nearly equal channel uses."""
    uses = lambda first, last: sum(header.rung_uses[first - 1 : last])
    unequal = lambda pair: abs(math.log(uses(1, pair[0]) / uses(last + 1, pair[1])))
    pairs = [*itertools.product(range(1, last + 1), range(last + 1, RUNGS + 1))]  # last rungs of both
    equal = [pair for pair in pairs if unequal(pair) < UNEQUAL_MAX] or [min(pairs, key=unequal)]
    again, more = max(equal, key=lambda pair: uses(1, pair[0]) + uses(last + 1, pair[1]))
    return {AGAIN: (1, again), MORE: (last + 1, more)}


def measure(link: Link, lpips: LPIPS, image: np.ndarray, snr_db: float, last: int, seed: int) -> dict:
    """LPIPS of a picture [1, 3, H, W] after its rungs 1 to `last`, and after each way to go on."""
    maps = lpips.maps_of(round_8bit(image))
    arrive = lambda rungs, part: receive_part(link, image, rungs, snr_db, seed=2 * seed + part)
    arrived, header = first = arrive((1, last), 0)
    score = lambda *others: lpips.distance_to(maps, round_8bit(link.receive(*first, seed=seed, others=others)))
    row: dict = {"snr_db": snr_db, "last_rung": last, "lpips": score()}
    for way, rungs in ways(header, last).items():
        other = arrive(rungs, 1)
        row |= {f"{way}_rungs": list(rungs), f"{way}_uses": other[1].channel_uses, f"{way}_lpips": score(other)}
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}


def receive_part(link: Link, image: np.ndarray, rungs: tuple[int, int], snr_db: float, seed: int):
    """What arrives of a run of rungs, and its header."""
    header, x = link.send(image, rungs=rungs)
    assert isinstance(x, np.ndarray)
    return link.propagate(x, snr_db, seed), header


def losses(rows: list[dict], again_below_db: dict[int, float]) -> list[float]:
    """LPIPS that the rule with these limits is above the better of both ways; 0 where it takes that way."""
    wishes = [wish_at(row["last_rung"], round_snr(row["snr_db"]), RUNGS, again_below_db) for row in rows]
    return [row[f"{wish}_lpips"] - min(row["again_lpips"], row["more_lpips"]) for row, wish in zip(rows, wishes)]


def count_right(rows: list[dict], again_below_db: dict[int, float]) -> int:
    """In how many cases the rule takes the better way."""
    return losses(rows, again_below_db).count(0)


def groups(rows: list[dict]) -> dict[int, list[dict]]:
    """The rows that share a limit, by the first last rung of the group."""
    firsts = [*AGAIN_BELOW_DB, RUNGS]
    return {low: [row for row in rows if low <= row["last_rung"] < high] for low, high in zip(firsts, firsts[1:])}


def fit(rows: list[dict]) -> dict[int, float]:
    """For each group the limit in dB that is right most often; of equally good ones, that in the middle."""
    tried = np.arange(SNR_DB[0], SNR_DB[1] + STEP_DB, STEP_DB).tolist()
    limits = {}
    for first, own in groups(rows).items():
        right = [count_right(own, {first: limit}) for limit in tried]
        best = [limit for limit, count in zip(tried, right) if count == max(right)]
        limits[first] = best[len(best) // 2]
    return limits


def share_on_others(rows: list[dict]) -> float:
    """How often a rule is right on a picture if it was fitted to all the others."""
    right = 0
    for image in sorted({row["image"] for row in rows}):
        limits = fit([row for row in rows if row["image"] != image])
        right += count_right([row for row in rows if row["image"] == image], limits)
    return right / len(rows)


def table(rows: list[dict]) -> list[dict]:
    """For each group and each band of SNRs: how often again is better, and the means."""
    found = []
    for first, group in groups(rows).items():
        for low, high in zip(BANDS_DB, BANDS_DB[1:]):
            own = [row for row in group if low <= row["snr_db"] < high]
            if own:
                mean = lambda name, own=own: round(float(np.mean([row[name] for row in own])), 4)
                better = sum(row["again_lpips"] < row["more_lpips"] for row in own) / len(own)
                found.append(
                    {
                        "last_rung_from": first,
                        "snr_db": [low, high],
                        "cases": len(own),
                        "again_is_better": round(better, 3),
                        **{name: mean(name) for name in ("lpips", "again_lpips", "more_lpips")},
                    }
                )
    return found


def verdicts(rows: list[dict]) -> list[dict]:
    """How often rules are right: the one that ships, the one that fits best, and that on pictures it was not fitted to."""
    found = []
    for name, limits in (("shipped", AGAIN_BELOW_DB), ("fitted", fit(rows))):
        right, loss = count_right(rows, limits) / len(rows), float(np.mean(losses(rows, limits)))
        found.append({"rule": name, "again_below_db": limits, "right": round(right, 3), "lpips_lost": round(loss, 4)})
    return [*found, {"rule": "fitted to the other pictures", "right": round(share_on_others(rows), 3)}]


if __name__ == "__main__":
    script(main)
