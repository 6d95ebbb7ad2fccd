"""A run of the bench: what is to be measured, what of it is done, and the files of DIR.

DIR/rows.jsonl has one JSON row a (system, picture, channel, SNR, draw), written when it is measured; DIR/features.bin the
classifier's features of every picture of a headline row, written before the row. Starting the same run again computes
what is missing. Work is cut into units of one picture and one family of systems, which share encodings (`unit.py`);
processes, or Ray's, take unit after unit (`workers.py`).
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..images import write_png
from .classifier import WIDTH
from .ends import Ends
from .pictures import Pictures
from .segmenter import load_segmenter
from .systems import family, find_system, missing, semcast_uses
from .unit import PROTOCOL, Setting, Unit
from .workers import here, in_processes, on_ray

ROWS = "rows.jsonl"
FEATURES = "features.bin"
RECORD = np.dtype([("sha256", "u1", 32), ("features", "<f2", WIDTH)])  # of FEATURES; by image_sha256 or received_sha256
PICTURES = 3  # of these the report shows what each system received, at the headline SNRs, draw 0
SNR_GRID_DB = (-5.0, 0.0, 1.0, 5.0, 10.0, 15.0, 20.0)
SMOKE_SNRS_DB = (1.0, 10.0)
SMOKE = (
    "semcast",
    "semcast-2steps",
    "semcast-1step",
    "stage-a",
    "downscale",
    "deepjscc",
    "jpeg2000-ldpc",
    "hevc-ldpc",
    "vvc-ldpc",
    "avif-capacity",
)


def bench(
    systems: list[str],
    pictures: Pictures,
    snrs: list[float],
    draws: int,
    out: Path,
    setting: Setting,
    workers: int = 1,
    ray: str | None = None,
    ends: Ends | None = None,
    progress=None,
) -> tuple[int, int]:
    """Compute the rows that DIR/rows.jsonl lacks. Returns how many the run has, and how many of them are new.

    Args:
        ray: address of a Ray cluster that does the work instead of processes of this machine ("local" starts one).
        ends: processes to use, for a run in this process.
        progress: a function of how many rows are done, and of how many.
    """
    check(systems, setting)
    done = read_rows(out / ROWS)
    check_versions(done, systems)
    units = list(plan(systems, pictures, snrs, draws, setting, {key(row) for row in done}))
    todo = sum(len(chosen) for unit in units for _, _, chosen in unit.jobs)
    total = len(pictures) * len(systems) * len(snrs) * draws
    if not todo:
        return total, 0
    given = (unit._replace(pixels=pictures.read(unit.index), truth=pictures.truth(unit.index)) for unit in units)
    if ray:
        rows = on_ray(given, ray)
    elif workers > 1 and len(units) > 1:
        rows = in_processes(given, min(workers, len(units)))
    else:
        rows = here(given, setting.device, ends)
    new, kept = 0, set(read_features(out / FEATURES, repair=True))
    with open(out / ROWS, "a", encoding="utf-8") as file, open(out / FEATURES, "ab") as features, contextlib.closing(rows):
        for row, picture, seen in rows:
            if picture is not None:
                write_png(picture_path(out, row), picture)
            for sha256, values in seen.items():
                if sha256 not in kept:
                    features.write(bytes.fromhex(sha256) + values.astype("<f2").tobytes())
            features.flush()
            kept |= seen.keys()
            file.write(json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n")
            file.flush()
            new += 1
            if progress:
                progress(new, todo)
    return total, new


def check(systems: list[str], setting: Setting) -> None:
    """Before hours of work, not after."""
    if setting.segmenter:
        load_segmenter(setting.segmenter)
    for name in systems:
        system = find_system(name)
        if packages := missing(name):
            raise InputError(f"{name} needs {' and '.join(packages)}: pip install 'semcast[bench,phy]'")
        system.ready()
        if system.link != "channel" and setting.channel != "awgn":
            raise InputError(f"{name} is a bound for awgn; leave it out on {setting.channel}")
    if twice := sorted({name for name in systems if systems.count(name) > 1}):
        raise InputError(f"system {twice[0]!r} is named twice")


def check_versions(rows: list[dict], systems: list[str]) -> None:
    for name in systems:
        if old := {row["system_version"] for row in rows if row["system"] == name} - {find_system(name).version()}:
            raise InputError(f"--out holds rows of another {name} ({min(old)}, now {find_system(name).version()}); choose another --out")


def plan(systems: list[str], pictures: Pictures, snrs: list[float], draws: int, setting: Setting, done: set) -> Iterator[Unit]:
    """Units of what is not done yet, in the order of the pictures."""
    families = {}
    for system in systems:
        families.setdefault(family(system), []).append(system)
    for index in range(len(pictures)):
        pixels, _ = pictures.read(index), pictures.truth(index)  # a missing label stops the run here, not hours later
        sha256, uses = picture_sha256(pixels), count_uses(setting.uses, *pixels.shape[:2])
        for members in families.values():
            jobs = []
            for system in members:
                for snr_db in snrs:
                    wanted = (system, sha256, setting.channel, dict(setting.options), snr_db, uses)
                    if left := tuple(draw for draw in range(draws) if key_of(*wanted, draw) not in done):
                        jobs.append((system, float(snr_db), left))
            if jobs:
                yield Unit(pictures.names[index], sha256, uses, tuple(jobs), setting, index < PICTURES, index)


def key_of(system: str, sha256: str, channel: str, options: dict, snr_db: float, uses: int, draw: int) -> tuple:
    return system, sha256, channel, json.dumps(options, sort_keys=True), float(snr_db), uses, draw


def key(row: dict) -> tuple:
    """What makes a row one that need not be computed again."""
    names = ("system", "image_sha256", "channel", "channel_options", "snr_db", "uses", "draw")
    return key_of(*(row[name] for name in names))


def read_rows(path: Path) -> list[dict]:
    """Rows of a run; a last line cut off by an interrupt is taken away."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        [key(row) for row in rows]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} does not hold rows of a bench; choose another --out") from None
    if other := {row["protocol"] for row in rows} - {PROTOCOL}:
        raise InputError(f"{path} holds rows of protocol {min(other)}, this is {PROTOCOL}; choose another --out")
    return rows


def read_features(path: Path, repair: bool = False) -> dict[str, np.ndarray]:
    """Features [1280] by SHA-256, as in rows; `repair` takes away a last record cut off by an interrupt."""
    data = path.read_bytes() if path.exists() else b""
    whole = len(data) // RECORD.itemsize * RECORD.itemsize
    if repair and whole != len(data):
        os.truncate(path, whole)
    records = np.frombuffer(data[:whole], RECORD)
    return {sha256.tobytes().hex(): features for sha256, features in zip(records["sha256"], records["features"])}


def picture_sha256(pixels: np.ndarray) -> str:
    """Of "HxW", a space, and the RGB bytes."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest()


def count_uses(rule: str, height: int, width: int) -> int:
    """The budget k of a picture.

    "same": as many as semcast needs at factor 0.75. "1/683" or "3/2048": that share of 3 H W, and 0.1 % more, since
    1/683 names 3/2048. "1152": that many.
    """
    if rule == "same":
        return semcast_uses(height, width, 0.75)
    try:
        value = Fraction(rule)
        k = math.floor(value * 3 * height * width * Fraction(1001, 1000)) if "/" in rule else int(rule)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--uses {rule}: write same, a bandwidth ratio like 1/683, or a number of channel uses") from None
    if k < 1:
        raise InputError(f"--uses {rule} leaves a picture of {width}x{height} pixels no channel use")
    return k


def picture_path(out: Path, row: dict) -> Path:
    """Where the picture that a row received is kept."""
    words = json.dumps([row["system"], row["image_sha256"], row["channel"], row["channel_options"], row["snr_db"], row["uses"]])
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    return folder / f"{hashlib.sha256(words.encode()).hexdigest()[:20]}.png"
