"""Calibrate `receive --confidence` on photos with known errors, and measure how well it holds on others.

    python benchmarks/confidence.py --photos PHOTOS ... --kodak KODAK --streets TEST --out benchmarks/results/confidence.json

The formula is fitted on --photos over random channels, SNRs and rungs, and written into the model's folder. It is
measured on Kodak's photos and CamVid's frames, on AWGN and on channels that it was not fitted on. Cells of a reception
are kept in --work, so that the command given again goes on where it stopped.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import lsq_linear
from scipy.stats import rankdata
from tqdm import tqdm

from scripts import command_line, script, summary
from semcast.bench.ours import enhancement_version, model_version
from semcast.bench.pictures import centre_crop
from semcast.bench.records import one_row_a_line
from semcast.bench.versions import commit
from semcast.cascade.engine import load_model
from semcast.cascade.models import find_model
from semcast.channels.catalogue import find_channel
from semcast.files import make_folder, write_text
from semcast.header import BASE, Transmission
from semcast.images import round_8bit, to_image
from semcast.link import Link
from semcast.metrics.confidence import FEATURES, FILE, OFFSET, Weights, features, true_error
from semcast.modulation.modems import demodulate
from semcast.randomness import seeded, stream
from semcast.training.data import Photos
from semcast.transmitter import top_rung

ROOT = Path(__file__).parent.parent
SNR_RANGE_DB = -3.0, 24.0  # of the receptions that the formula is fitted on
FITTED_ON = (  # channels with their options, equally likely
    ("awgn", {}),
    ("awgn", {}),
    ("rician", {}),
    ("erasure", {"rate": 0.3}),
    ("packet-erasure", {"rate": 0.2, "interleave": "no"}),
)
RECEPTIONS = 2  # of a photo: one of the base, one of any rungs from the first
FIT_SIDE, KODAK_SIDE = 384, 512  # pixels of centre crops
MEASURED_ON, SNRS_DB = ("awgn", "rayleigh", "rayleigh-fast"), (1.0, 5.0, 10.0)
RIDGE = 1e-3  # on features of unit deviation; keeps weights finite where a feature never varies
WORST = 0.1  # share of the cells that the area under the curve asks for
BINS = 10


class Case(NamedTuple):
    """One reception of a picture."""

    channel: str
    options: dict
    snr_db: float
    rungs: tuple[int, int]
    seed: int


class Cells(NamedTuple):
    """The cells of one reception."""

    features: np.ndarray  # [cells, features]
    error: np.ndarray  # [cells], of 255


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--photos", type=Path, nargs="+", required=True, help="to fit on: folders, tar files or pictures")
    p.add_argument("--kodak", type=Path, required=True, help="folder of the 24 Kodak photos")
    p.add_argument("--streets", type=Path, required=True, help="CamVid's test frames, folder or tar")
    p.add_argument("--count", type=int, default=60, help="photos to fit on, evenly spread; default: %(default)s")
    p.add_argument("--limit", type=int, default=20, help="pictures of each other set; default: %(default)s")
    p.add_argument("--model", default="small")
    p.add_argument("--work", type=Path, default=ROOT / "out" / "confidence", help="default: %(default)s")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    link = Link(load_model(args.model))
    version = f"{model_version(args.model)}, {enhancement_version(args.model)}"
    work = make_folder(args.work / hashlib.sha256(repr((version, FEATURES)).encode()).hexdigest()[:16])
    fitted = fit([cells for _, cells in receptions(link, args.photos, args.count, FIT_SIDE, random_cases, work)])
    folder = find_model(args.model).folder
    assert folder is not None
    calibration = {
        "model": version,
        "encoder_id": f"{link.engine.encoder_id:04x}",
        "made_by": command_line(),
        "weights": {name: round(weight, 5) for name, weight in fitted.items()},
    }
    write_text(folder / FILE, json.dumps(calibration, indent=1) + "\n")
    sets = (("kodak", args.kodak, KODAK_SIDE), ("camvid", args.streets, None))
    rows = []
    for name, source, side in sets:
        found = list(receptions(link, [source], args.limit, side, grid_cases, work))
        for channel in MEASURED_ON:
            for snr_db in SNRS_DB:
                some = [cells for case, cells in found if (case.channel, case.snr_db) == (channel, snr_db)]
                row = {"pictures": name, "channel": channel, "snr_db": snr_db} | judge(some, fitted)
                rows.append(row)
                print(json.dumps(row))
    systems = {"semcast-ladder": version}
    record = {
        "schema": 1,
        "command": command_line(),
        "commit": commit(),
        "systems": systems,
        **calibration,
        "rows": rows,
    }
    write_text(args.out, one_row_a_line(record))


def receptions(
    link: Link, sources: list[Path], count: int, side: int | None, cases, work: Path
) -> Iterator[tuple[Case, Cells]]:
    """The cases of some pictures, evenly spread over all, with their cells."""
    photos = Photos(list(sources), "val")
    count = min(count, len(photos))
    for i in tqdm([i * len(photos) // count for i in range(count)], unit="picture", leave=False, disable=None):
        name = photos.items[i][0]
        pixels = photos.read(photos.shown(i))
        if side:
            pixels = centre_crop(pixels, min(side, *pixels.shape[:2]), name)
        image, sent = to_image(np.ascontiguousarray(pixels)), {}
        picture = hashlib.sha256(image.tobytes()).hexdigest()
        for case in cases(link, picture):
            path = work / f"{hashlib.sha256(repr((picture, case)).encode()).hexdigest()[:32]}.npz"
            if not path.exists():
                if case.rungs not in sent:
                    sent[case.rungs] = link.send(image, rungs=case.rungs)
                partial = path.with_suffix(".partial.npz")
                np.savez(partial, **observe(link, image, sent[case.rungs], case)._asdict())
                partial.replace(path)
            with np.load(path) as held:
                yield case, Cells(held["features"], held["error"])


def random_cases(link: Link, picture: str) -> list[Case]:
    """Receptions to fit on."""
    rng = seeded("confidence", picture)
    top, cases = top_rung(link.engine.config), []
    for i in range(RECEPTIONS):
        channel, options = FITTED_ON[rng.integers(len(FITTED_ON))]
        rungs = (1, int(rng.integers(1, top + 1))) if i % 2 else BASE
        cases.append(Case(channel, options, float(rng.uniform(*SNR_RANGE_DB)), rungs, int(rng.integers(2**31))))
    return cases


def grid_cases(link: Link, picture: str) -> list[Case]:
    """Receptions to measure on; a picture has the same noise on all channels."""
    seed = int(picture[:8], 16)
    return [Case(channel, {}, snr_db, BASE, seed) for channel in MEASURED_ON for snr_db in SNRS_DB]


def observe(link: Link, image: np.ndarray, sent: Transmission, case: Case) -> Cells:
    """Receive a picture and compare it with the original."""
    assert isinstance(sent.content, np.ndarray)
    received = find_channel(case.channel)(sent.content, case.snr_db, [stream(case.seed, "channel")], **case.options)
    result = round_8bit(link.receive(received, sent.header))
    maps = features(result, *demodulate(link.modems, [(received, sent.header)]), link.engine)
    return Cells(np.stack([maps[name].ravel() for name in FEATURES], axis=1), true_error(image, result).ravel())


def fit(found: list[Cells]) -> Weights:
    """Least squares of log(error + OFFSET), every reception with equal weight; then the mean error is made right.

    No weight but the constant's is negative: more noise must never mean less error.
    """
    x = np.concatenate([cells.features for cells in found]).astype(np.float64)
    error = np.concatenate([cells.error for cells in found]).astype(np.float64)
    share = np.concatenate([np.full(len(cells.error), 1 / len(cells.error)) for cells in found]) / len(found)
    scale = np.sqrt(np.average((x - np.average(x, axis=0, weights=share)) ** 2, axis=0, weights=share))
    scale = np.where(scale > 1e-6, scale, 1)
    root = np.sqrt(share)[:, None]
    ridge = RIDGE**0.5 * np.diag([float(name != "one") for name in FEATURES])
    a = np.concatenate([x / scale * root, ridge])
    b = np.concatenate([np.log(error + OFFSET) * root[:, 0], np.zeros(len(FEATURES))])
    least = [-np.inf if name == "one" else 0.0 for name in FEATURES]
    weights = lsq_linear(a, b, bounds=(least, np.inf)).x / scale
    weights[FEATURES.index("one")] += np.log(share @ (error + OFFSET) / (share @ np.exp(x @ weights)))
    return dict(zip(FEATURES, weights.tolist(), strict=True))


def judge(found: list[Cells], weights: Weights) -> dict:
    """How well expected errors fit the true ones, over all cells of some receptions.

    Returns:
        spearman: rank correlation of all cells together; spearman_within: mean of those of each reception.
        auc: area under the ROC curve of the tenth of the cells with the largest true errors.
        ece: over ten bins of equally many cells, by expected error: mean abs(mean expected - mean true) / mean true.
    """
    w = np.array([weights[name] for name in FEATURES])
    expected = [np.clip(np.exp(cells.features @ w) - OFFSET, 0, 255) for cells in found]
    guess, truth = np.concatenate(expected), np.concatenate([cells.error for cells in found])
    bad = truth >= np.quantile(truth, 1 - WORST)
    ranks, n_bad = rankdata(guess), int(bad.sum())
    bins = np.array_split(np.argsort(guess), BINS)
    off = [abs(guess[some].mean() - truth[some].mean()) for some in bins]
    return {
        "receptions": len(found),
        "cells": len(truth),
        "spearman": correlation(guess, truth),
        "spearman_within": float(np.mean([correlation(g, c.error) for g, c in zip(expected, found)])),
        "auc": float((ranks[bad].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * (len(truth) - n_bad))),
        "ece": float(np.mean(off) / truth.mean()),
        "error_mean": float(truth.mean()),
        "expected_mean": float(guess.mean()),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, which is Pearson's of the ranks."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


if __name__ == "__main__":
    script(main)
