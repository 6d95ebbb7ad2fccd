"""The harness: it alone applies the channel, counts, checks power, measures, and writes rows. Systems are in `ends.py`.

DIR/rows.jsonl has one JSON row a (system, picture, channel, SNR, draw), written when it is measured; DIR/features.bin the
classifier's features of every picture of a headline row, written before the row. Starting the same run again computes
what is missing. Work is cut into units of one picture and one family of systems (which share encodings);
processes, or Ray's, take unit after unit.
"""

import contextlib
import functools
import hashlib
import json
import math
import multiprocessing
import os
import socket
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..channel import Received, channel_uses, find_channel
from ..errors import InputError
from ..images import write_png
from ..link import stream
from ..memory import keep_freed_memory
from . import measures
from .classifier import WIDTH
from .ends import Ends
from .pictures import Pictures
from .segmenter import load_segmenter
from .systems import FINITE_LOSS, System, family, find_system, ideal_bits, missing, semcast_uses

PROTOCOL = 1  # of PROTOCOL.md's section "The bench"
ROWS = "rows.jsonl"
FEATURES = "features.bin"
RECORD = np.dtype([("sha256", "u1", 32), ("features", "<f2", WIDTH)])  # of FEATURES; by image_sha256 or received_sha256
SIDE_BITS_MAX = 1024  # who needs more must send it
POWER_TOLERANCE = 1e-3
PICTURES = 3  # of these the report shows what each system received, at the headline SNRs, draw 0
MEASURED_NOISE = ("awgn", "rayleigh", "rayleigh-fast", "rician")  # y - h x is the noise
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


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all rows of a run share."""

    channel: str = "awgn"
    options: tuple[tuple[str, object], ...] = ()  # of the channel, all of them
    uses: str = "same"
    headline: tuple[float, ...] = (1, 10, 20)  # SNRs with the slow metrics and pictures
    lpips: Path | None = None
    segmenter: Path | None = None
    device: str = "cpu"
    size: int | None = None


class Unit(NamedTuple):
    """Work for one process: one picture, systems of one family."""

    name: str
    sha256: str
    uses: int
    jobs: tuple[tuple[str, float, tuple[int, ...]], ...]  # system, snr_db, draws
    setting: Setting
    shown: bool  # keep pictures
    index: int  # of the picture in the data
    pixels: np.ndarray | None = None  # uint8 [H, W, 3]; read when the unit is given away
    truth: np.ndarray | None = None  # uint8 [H, W], classes of its pixels, if there are labels


Measured = tuple[dict, np.ndarray | None, dict[str, np.ndarray]]  # row, picture to keep, features by SHA-256


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


# Where the work is done


def here(units: Iterator[Unit], device: str, ends: Ends | None) -> Iterator[Measured]:
    threads = torch.get_num_threads()
    with contextlib.nullcontext(ends) if ends else Ends(device) as ends:
        try:
            torch.set_num_threads(1)
            for unit in units:
                yield from measure_unit(unit, ends)
        finally:
            torch.set_num_threads(threads)


def in_processes(units: Iterator[Unit], workers: int) -> Iterator[Measured]:
    """Units are read as they are given away, so few pictures are in memory at a time."""
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        pending = set()
        while True:
            while len(pending) < 2 * workers and (unit := next(units, None)) is not None:
                pending.add(pool.submit(in_worker, unit))
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield from future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; give the command again to go on, or fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def on_ray(units: Iterator[Unit], address: str) -> Iterator[Measured]:
    """Every machine of the cluster needs semcast, and the LPIPS folder at the same place."""
    try:
        import ray
    except ImportError as error:
        raise InputError(f"--ray needs Ray ({error}): pip install 'semcast[ray]'") from None
    try:
        if ":" in address and "://" not in address:  # Ray itself would try for minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError ...
        raise InputError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None
    try:
        work, pending = ray.remote(num_cpus=1)(in_worker), []
        limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while True:
            while len(pending) < limit and (unit := next(units, None)) is not None:
                pending.append(work.remote(unit))
            if not pending:
                return
            (finished, *_), pending = ray.wait(pending)
            yield from ray.get(finished)
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, InputError):
            raise error.cause from None
        raise InputError(f"the Ray cluster gave up ({str(error).strip().splitlines()[-1]}); give the command again to go on") from None
    finally:
        ray.shutdown()


def in_worker(unit: Unit) -> list[Measured]:
    torch.set_num_threads(1)
    keep_freed_memory()
    return list(measure_unit(unit, _own_ends(unit.setting.device)))


@functools.cache
def _own_ends(device: str) -> Ends:
    return Ends(device)  # of this worker, as long as it lives


# One unit


def measure_unit(unit: Unit, ends: Ends) -> Iterator[Measured]:
    """Its rows, each with the picture that was received if it is to be kept, and features of original and received."""
    setting, measured, references = unit.setting, {}, {}
    for name, snr_db, draws in unit.jobs:
        system, headline = find_system(name), snr_db in setting.headline
        if headline not in references:
            references[headline] = measures.reference(unit.pixels, setting.lpips, headline, setting.segmenter, unit.truth)
        sent, side, send_ms = ends.send(name, unit.pixels, unit.uses, snr_db)
        facts = check_sent(name, system, sent, side, unit.uses, snr_db)
        for draw in draws:
            seed = draw_seed(unit.sha256, draw)
            received, noise = transmit(system, sent, snr_db, seed, setting)
            image, receive_ms = (None, None) if received is None else ends.receive(name, received, side)
            lost = image is None
            image = check_image(name, unit.pixels, mean_colour(name, unit.pixels, side) if lost else image)
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            if (digest, headline) not in measured:  # what arrives whole is the same in every draw
                measured[digest, headline] = measures.measure(references[headline], image, setting.lpips)
            quality, features = measured[digest, headline]
            row = {
                "protocol": PROTOCOL,
                "system": name,
                "system_version": system.version(),
                "image": unit.name,
                "image_sha256": unit.sha256,
                "height": unit.pixels.shape[0],
                "width": unit.pixels.shape[1],
                "size": setting.size,
                "channel": setting.channel,
                "channel_options": dict(setting.options),
                "snr_db": snr_db,
                "draw": draw,
                "seed": seed,
                "uses_rule": setting.uses,
                "uses": unit.uses,
                **facts,
                **noise,
                "send_ms": round(send_ms, 2),
                "receive_ms": receive_ms and round(receive_ms, 2),
                "lost": lost,
                **quality,
                "received_sha256": digest,
                "headline": headline,
                "versions": measures.versions(setting.lpips, setting.segmenter),
            }
            seen = {} if features is None else {unit.sha256: references[headline]["seen"].features, digest: features}
            yield row, image if unit.shown and headline and draw == 0 else None, seen


def check_sent(name: str, system: System, sent: torch.Tensor | bytes, side: dict, uses: int, snr_db: float) -> dict:
    """What a sender hands over, counted and checked by the harness. Returns fields of the row."""
    wrong = lambda text: InputError(f"the sender of {name!r} {text}")
    for field, (value, bits) in side.items():
        if not (isinstance(value, int) and isinstance(bits, int) and 0 <= value < 2 ** min(bits, SIDE_BITS_MAX)):
            raise wrong(f"has side information {field} = {value!r}, which is no whole number of {bits} bits")
    side_bits = sum(bits for _, bits in side.values())
    if side_bits > SIDE_BITS_MAX:
        raise wrong(f"needs {side_bits} bits of side information; what is above {SIDE_BITS_MAX} has to be sent")
    if isinstance(sent, bytes) != (system.link != "channel"):
        raise wrong(f"gave {'bytes' if isinstance(sent, bytes) else 'symbols'}, which its link does not carry")
    facts = {"side_bits": side_bits, "side": side, "payload_bits": None, "power": None}
    if isinstance(sent, bytes):
        most = ideal_bits(system.link, uses, snr_db)
        if 8 * len(sent) > most:
            raise wrong(f"has a payload of {8 * len(sent)} bits; {uses} uses at {snr_db:g} dB carry {most}")
        return {"payload_uses": uses, **facts, "payload_bits": 8 * len(sent)}
    k = sent.shape[1]
    if k > uses:
        raise wrong(f"used the channel {k} times; {uses} are allowed")
    if k == 0:
        return {"payload_uses": 0, **facts}
    power = sent.abs().square().double().mean().item()
    spread = 5 * math.sqrt(0.4 / k) if system.digital else 0.0  # 256-QAM: Var|x|^2 = 0.4
    if not abs(power - 1) <= POWER_TOLERANCE + spread:  # refuses NaN too
        raise wrong(f"sent with power {power:.5g} instead of 1")
    return {"payload_uses": k, **facts, "power": power}


def transmit(
    system: System, sent: torch.Tensor | bytes, snr_db: float, seed: int, setting: Setting
) -> tuple[Received | bytes | None, dict]:
    """The channel: what arrives, None for nothing, and its fields of the row."""
    noise = {"channel_uses": 0, "es_n0_db": None}
    if isinstance(sent, bytes):
        lucky = system.link == "capacity" or torch.rand((), generator=stream(seed, "loss")).item() >= FINITE_LOSS
        return (sent if sent and lucky else None), noise | {"channel_uses": None}
    if not sent.shape[1]:
        return None, noise
    channel, options = find_channel(setting.channel), dict(setting.options)
    received = channel(sent, snr_db, [stream(seed, "channel")], **options)
    if setting.channel in MEASURED_NOISE:
        n = received.y - received.h * sent
        noise["es_n0_db"] = 10 * math.log10(sent.abs().square().double().sum().item() / n.abs().square().double().sum().item())
    return received, noise | {"channel_uses": channel_uses(setting.channel, sent.shape[1], **options)}


def mean_colour(name: str, pixels: np.ndarray, side: dict) -> np.ndarray:
    """What is shown of a lost picture: the mean colour, which came as side information."""
    if not {"red", "green", "blue"} <= side.keys():
        raise InputError(f"the receiver of {name!r} lost the picture, but its side information has no mean colour (red, green, blue)")
    return np.broadcast_to(np.array([side[c][0] for c in ("red", "green", "blue")], np.uint8), pixels.shape).copy()


def check_image(name: str, sent: np.ndarray, image: np.ndarray) -> np.ndarray:
    if image.shape != sent.shape:
        raise InputError(f"the receiver of {name!r} returned {list(image.shape)} instead of {list(sent.shape)}")
    return image


def draw_seed(sha256: str, draw: int) -> int:
    """Of the channel: one for every picture and draw, the same for all systems and SNRs. No system is told."""
    return int.from_bytes(hashlib.sha256(f"{sha256} {draw}".encode()).digest()[:4], "big")


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


def default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
