"""A run of the bench: it plans what is to be measured, skips what is done, and keeps the files of DIR.

DIR/rows.jsonl has one JSON row per (system, picture, channel, SNR, draw), written as soon as it is measured.
DIR/features.bin has the classifier's features of every picture of a headline row, written before the row. DIR/pictures
has the pictures of the report. Starting the same run again computes only what is missing. The work is cut into units of
one picture and one family of systems, which share encodings (`unit.py`); processes of this machine or of Ray take unit
after unit (`workers.py`).
"""

import contextlib
import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError, brings
from ..images import write_png
from ..metrics.classifier import WIDTH
from ..metrics.segmenter import load_segmenter
from .ends import Ends
from .ours import semcast_uses
from .pictures import Pictures
from .progress import Tally, remaining_s
from .systems import SYSTEMS, family, find_system, missing
from .unit import PROTOCOL, Setting, Unit
from .workers import Timed, cluster_cores, here, in_processes, on_ray

ROWS = "rows.jsonl"
FEATURES = "features.bin"
# A record of FEATURES. Its sha256 is the image_sha256 or received_sha256 of rows.
RECORD = np.dtype([("sha256", "u1", 32), ("features", "<f2", WIDTH)])
KEY = ("system", "image_sha256", "channel", "channel_options", "snr_db", "uses", "copies", "snr_error_db", "draw")
PICTURES = 3  # the report shows what each system received of this many pictures, at the headline SNRs, draw 0
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
    executor: ProcessPoolExecutor | None = None,
    progress=None,
) -> tuple[int, int]:
    """Compute the rows that DIR/rows.jsonl lacks. Returns how many rows the run has, and how many of them are new.

    Args:
        ray: address of a Ray cluster that does the work instead of processes of this machine ("local" starts one).
        ends: the sender and receiver to use when the work is done in this process.
        executor: a `workers.pool` to use when it is done in several, which is kept.
        progress: a function of the seconds left, the number of rows done and the number to do.
    """
    check(systems, setting)
    done = read_rows(out / ROWS)
    check_versions(done, systems)
    units = list(plan(systems, pictures, snrs, draws, setting, {key(row) for row in done}))
    todo = sum(len(chosen) for unit in units for _, _, chosen in unit.jobs)
    total = len(pictures) * len(systems) * len(snrs) * draws
    for index in range(min(PICTURES, len(pictures))):
        pixels = pictures.read(index)
        if not (path := original_path(out, picture_sha256(pixels))).exists():
            write_png(path, pixels)
    if not todo:
        return total, 0
    given = (unit._replace(pixels=pictures.read(unit.index), truth=pictures.truth(unit.index)) for unit in units)
    rows: Generator[Timed, None, None]
    workers = min(workers, len(units))
    if ray:
        rows = on_ray(given, ray)
    elif workers > 1:
        rows = in_processes(given, workers, executor)
    else:
        rows = here(given, setting.device, ends)
    new, tally, kept = 0, Tally(units), set(read_features(out / FEATURES, repair=True))
    with (
        open(out / ROWS, "a", encoding="utf-8") as file,
        open(out / FEATURES, "ab") as features,
        contextlib.closing(rows),
    ):
        for (row, picture, seen), place, seconds in rows:
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
            tally.add(place, row, seconds)
            if progress:
                sharing = min(cluster_cores(), len(units)) if ray else workers
                progress(remaining_s(tally.left, tally.measured, sharing), new, todo)
    return total, new


def check(systems: list[str], setting: Setting) -> None:
    """Raise InputError before the work, not after hours of it, if a system or the segmenter cannot be used."""
    if setting.segmenter:
        load_segmenter(setting.segmenter)
    for name in systems:
        if found := obstacle(name, setting):
            raise InputError(found[1])
    if twice := sorted({name for name in systems if systems.count(name) > 1}):
        raise InputError(f"system {twice[0]!r} is named twice")


def obstacle(name: str, setting: Setting) -> tuple[str, str] | None:
    """Why a system cannot run with this setting, in a word or two and as a line; None if it can."""
    system = find_system(name)
    if packages := " and ".join(missing(name)):
        return f"no {packages}", f"{name} needs {packages}: {brings('bench')}"
    try:
        system.ready()
    except InputError as error:
        return "no weights", str(error)
    if system.told and not setting.segmenter:
        return "no labels", f"{name} needs --labels and --segmenter: it sends the classes of the pixels"
    if system.link != "channel" and setting.channel != "awgn":
        return "bounds for awgn", f"{name} is a bound for awgn; leave it out on {setting.channel}"
    if system.link != "channel" and (setting.copies > 1 or setting.snr_error_db):
        said = f"{name} is a bound for one reception at a known SNR; leave it out with --copies or --snr-error"
        return "bounds for one reception at a known SNR", said
    return None


def runnable(setting: Setting) -> tuple[list[str], str]:
    """All systems that can run with this setting, and a line about the others: their names by what they lack."""
    able, others = [], defaultdict(list)
    for name in SYSTEMS:
        if found := obstacle(name, setting):
            others[found[0]].append(name)
        else:
            able.append(name)
    return able, "; ".join(f"{', '.join(names)} ({why})" for why, names in others.items())


def check_versions(rows: list[dict], systems: list[str]) -> None:
    for name in systems:
        if old := {row["system_version"] for row in rows if row["system"] == name} - {find_system(name).version()}:
            raise InputError(
                f"--out holds rows of another {name} ({min(old)}, now {find_system(name).version()}); "
                "choose another --out"
            )


def plan(
    systems: list[str], pictures: Pictures, snrs: list[float], draws: int, setting: Setting, done: set
) -> Iterator[Unit]:
    """The units that are not done yet, in the order of the pictures."""
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
                    wanted = (
                        system,
                        sha256,
                        setting.channel,
                        dict(setting.options),
                        snr_db,
                        uses,
                        setting.copies,
                        setting.snr_error_db,
                    )
                    if left := tuple(draw for draw in range(draws) if key_of(*wanted, draw) not in done):
                        jobs.append((system, float(snr_db), left))
            if jobs:
                shown, megapixels = index < PICTURES, pixels.shape[0] * pixels.shape[1] / 1e6
                yield Unit(
                    pictures.names[index], sha256, uses, tuple(jobs), setting, shown, index, megapixels=megapixels
                )


def key_of(
    system: str,
    sha256: str,
    channel: str,
    options: dict,
    snr_db: float,
    uses: int,
    copies: int,
    snr_error_db: float,
    draw: int,
) -> tuple:
    return (
        system,
        sha256,
        channel,
        json.dumps(options, sort_keys=True),
        float(snr_db),
        uses,
        copies,
        float(snr_error_db),
        draw,
    )


def key(row: dict) -> tuple:
    """The key of a row: a row whose key is known need not be computed again."""
    return key_of(*(row[name] for name in KEY))


def read_rows(path: Path) -> list[dict]:
    """The rows of a run. A last line cut off by an interrupt is removed from the file."""
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
    """Features [1280] by SHA-256, as in rows. `repair` removes a last record cut off by an interrupt."""
    data = path.read_bytes() if path.exists() else b""
    whole = len(data) // RECORD.itemsize * RECORD.itemsize
    if repair and whole != len(data):
        os.truncate(path, whole)
    records = np.frombuffer(data[:whole], RECORD)
    return {sha256.tobytes().hex(): features for sha256, features in zip(records["sha256"], records["features"])}


def picture_sha256(pixels: np.ndarray) -> str:
    """The SHA-256 of "HxW", a space, and the RGB bytes."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest()


def count_uses(rule: str, height: int, width: int) -> int:
    """The number k of channel uses that a picture gets.

    "same": as many as semcast needs at factor 0.75. "1/683" or "3/2048": that share of 3 H W, and 0.1 % more, since
    1/683 stands for 3/2048. "1152": that many.
    """
    if rule == "same":
        return semcast_uses(height, width, 0.75)
    try:
        value = Fraction(rule)
        k = math.floor(value * 3 * height * width * Fraction(1001, 1000)) if "/" in rule else int(rule)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"--uses {rule}: write same, a bandwidth ratio like 1/683, or a number of channel uses"
        ) from None
    if k < 1:
        raise InputError(f"--uses {rule} leaves a picture of {width}x{height} pixels no channel use")
    return k


def picture_path(out: Path, row: dict) -> Path:
    """The file that keeps the picture a row received. Makes its folder."""
    words = json.dumps([row[name] for name in KEY if name != "draw"])
    return _pictures(out) / f"{hashlib.sha256(words.encode()).hexdigest()[:20]}.png"


def original_path(out: Path, sha256: str) -> Path:
    """The file that keeps a picture as it was sent, for the report. Makes its folder."""
    return _pictures(out) / f"original-{sha256[:20]}.png"


def _pictures(out: Path) -> Path:
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    return folder
