"""`semcast run` and `semcast demo`: the whole link in one go."""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError, Lost
from ..files import STDIO, check_file, check_output, check_suffix, make_folder
from ..header import BASE, SEED_MAX, SIDE_BITS, bandwidth_ratio, check_sides, round_factor
from .common import (
    check_link,
    check_metrics,
    hint_at_size,
    load_link,
    load_metrics,
    notice,
    program,
    progress_bar,
    stem_of,
)
from .rate import check_rate, choose_packet, choose_rungs, is_asked, tell_packet

if TYPE_CHECKING:
    import numpy as np

    from ..link import Link
    from ..receiver import Reconstruction


class Job(NamedTuple):
    """One picture over one SNR."""

    image: Path
    snr_db: float
    seed: int
    output: Path


def demo(args) -> None:
    notice("loading the networks ...")
    sheet = make_folder(args.out) / "demo.png"
    check_output(sheet, force=args.force)
    from .. import demo as demo_module

    columns = {"snr_db": ".0f", "psnr_db": ".2f", "ms_ssim": ".3f", "channel_uses": "d", "side_bits": "d"}
    print("  ".join(columns), flush=True)
    for row in demo_module.run(sheet):
        print("  ".join(f"{row[name]:{len(name)}{form}}" for name, form in columns.items()), flush=True)
    print(f"{sheet}: the photo as sent, and as received at each SNR")
    print(f"Your own photo: {program()} run photo.jpg --snr 10 --out {args.out}")


def run(args) -> None:
    jobs = plan(args)
    check_rate(args)
    check_link(args)
    check_metrics(args)
    from ..images import read_image

    read = lru_cache(maxsize=1)(lambda path: read_named(path, read_image))  # once for all its SNRs
    if len({job.image for job in jobs}) == 1:
        read(jobs[0].image)  # refused before the networks are loaded
    link = load_link(args)
    link.engine.load(layers=is_asked(args))
    lpips, bad, lost = load_metrics(args.lpips, args.fetch_metrics), 0, 0
    for job in jobs:
        try:
            row = send_over(job, read(job.image), link, lpips, args)
        except InputError as error:
            if len(jobs) == 1:
                raise
            print(f"semcast: {error}", file=sys.stderr)  # the others go on
            bad += 1
            continue
        show(row, args.json, sys.stderr if job.output == STDIO else sys.stdout)
        if row["packet_arrived"] is False:
            notice("the packet of %s was lost at %g dB; %s is the base's picture", job.image, job.snr_db, job.output)
        if row["lost"]:
            notice("%s was lost at %g dB; %s shows its mean colour", job.image, job.snr_db, job.output)
            lost += 1
    if bad:
        raise InputError(f"{bad} of {len(jobs)} transmissions were not made")
    if lost:
        raise Lost(f"{lost} of {len(jobs)} pictures did not arrive")


def plan(args) -> list[Job]:
    """What is to be done; all that can be refused is refused here, before minutes of work."""
    names: dict[Path, str] = {}  # of each picture, below the folder of results, without a suffix
    for source in args.images:
        if source.is_dir():
            from ..images import find_pictures

            found = [path for path in find_pictures(source) if not is_result(path, args.out, source)]
            if not found:
                raise InputError(f"no pictures in {source}")
            names |= {path: str(path.relative_to(source).with_suffix("")) for path in found}
        else:
            check_file(source, "picture")
            names[source] = stem_of(source)
    if args.seed + len(names) - 1 > SEED_MAX:
        raise InputError(f"seed {args.seed} + {len(names) - 1} is above {SEED_MAX}")
    often = Counter(names.values())
    names = {path: name + path.suffix.replace(".", "_") * (often[name] > 1) for path, name in names.items()}
    jobs, snrs = [], list(dict.fromkeys(args.snr))
    for i, (path, name) in enumerate(names.items()):
        for snr_db in snrs:
            file = f"{name}_{snr_db:g}dB.png" if len(snrs) > 1 else f"{name}.png"
            jobs.append(Job(path, snr_db, args.seed + i, args.output or args.out / file))
    if args.output and len(jobs) > 1:
        raise InputError(f"-o names one file, and {len(jobs)} pictures would be received; use --out FOLDER")
    if twice := [str(file) for file, count in Counter(job.output for job in jobs).items() if count > 1]:
        raise InputError(f"two pictures would be written to {twice[0]}; run them with different --out")
    check_outputs(jobs, args)
    return jobs


def is_result(path: Path, out: Path, source: Path) -> bool:
    """Whether a picture lies where earlier results do, in a folder of their own below the source."""
    results = out.resolve()
    return results != source.resolve() and results in path.resolve().parents


def check_outputs(jobs: list[Job], args) -> None:
    inputs = list({job.image for job in jobs})
    for folder in {job.output.parent for job in jobs if job.output != STDIO}:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"cannot write into {folder}: it is not a folder")
    for job in jobs:
        check_suffix(job.output)
        if args.output or job.output.parent.is_dir():  # folders below --out are made later
            check_output(job.output, inputs, args.force)


def read_named(path: Path, read_image) -> "np.ndarray":
    """The picture [1, 3, H, W], whose name is in every message about it."""
    image = read_image(path)
    try:
        check_sides(*image.shape[-2:])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return image


def send_over(job: Job, image: "np.ndarray", link: "Link", lpips: dict, args) -> dict:
    """Send one picture, write what is received, and describe it."""
    from ..images import write_image
    from ..metrics.measure import measure
    from ..metrics.pixels import MS_SSIM_SIDE_MIN

    with progress_bar(args.steps or link.engine.config.steps, job.image.name, quiet=args.quiet) as tick:
        rungs = choose_rungs(args, link, image, job.snr_db)
        packet = choose_packet(args, link, image)
        result = link(image, job.snr_db, job.seed, args.factor, args.steps, tick, rungs, packet)
    if result.sent:
        tell_packet(packet, result.sent.header, job.snr_db)
    if job.output != STDIO:
        make_folder(job.output.parent)
    with ThreadPoolExecutor(1) as beside:
        writing = beside.submit(write_image, job.output, result.image)
        quality = measure(image, result.image, lpips)
        writing.result()
    if quality["ms_ssim"] is None:
        notice("ms_ssim of %s is null: it needs sides of at least %d pixels", job.image, MS_SSIM_SIDE_MIN)
    hint_at_size(str(job.image), image.shape[2], image.shape[3], result.payload_uses)
    return describe(result, link, job, args, quality)


def describe(result: "Reconstruction", link: "Link", job: Job, args, quality: dict) -> dict:
    """The row of `run`: what was sent at what cost, and how good it came back."""
    from ..modulation.digital import find_scheme

    _, _, height, width = result.image.shape
    modem, sent = link.modems[link.mode], result.sent
    payload = sent.content if sent and isinstance(sent.content, bytes) else None
    uses = link.channel.uses(result.payload_uses, link.options) if sent else 0
    return {
        "image": str(job.image),
        "output": str(job.output),
        "width": width,
        "height": height,
        "channel_uses": uses,
        "payload_uses": result.payload_uses,
        "bandwidth_ratio": bandwidth_ratio(uses, height, width),
        "element_ratio": 2 * bandwidth_ratio(uses, height, width),
        "rungs": list(sent.header.rungs) if sent else list(BASE),
        "packet_uses": sent.header.packet_uses if sent else 0,
        "packet_arrived": packet_arrived(result, link),
        "side_bits": (sent.header.side_bits if sent else SIDE_BITS) + modem.side_bits,
        "mode": link.mode,
        "scheme": str(find_scheme(sent.header)) if sent and sent.header.scheme else None,
        "payload_bytes": len(payload) if payload else None,
        "lost": result.lost,
        "channel": link.channel.name,
        "channel_options": link.options,
        "snr_db": job.snr_db,
        "seed": job.seed,
        **quality,
        "encode_ms": result.encode_ms,
        "decode_ms": result.decode_ms,
        "model": link.engine.config.name,
        "factor": round_factor(args.factor or link.engine.config.factor),
        "steps": args.steps or link.engine.config.steps,
    }


def packet_arrived(result: "Reconstruction", link: "Link") -> bool | None:
    """Of a packet behind the base; None where none was sent."""
    from ..modulation.modems import draft

    if not result.sent or result.received is None or not result.sent.header.packet_uses:
        return None
    return draft(link.modems, [(result.received, result.sent.header)]) is not None


def show(row: dict, as_json: bool, file) -> None:
    """One line for a person on a terminal, one JSON object for a program."""
    if as_json or not file.isatty():
        print(json.dumps(row, allow_nan=False, separators=(",", ":")), file=file, flush=True)
        return
    parts = [row["image"], f"{row['snr_db']:g} dB", f"{row['channel_uses']} uses + {row['side_bits']} bits"]
    parts += ["lost"] if row["lost"] else []
    for name, title, form in (
        ("psnr_db", "PSNR", ".1f"),
        ("ms_ssim", "MS-SSIM", ".3f"),
        ("lpips", "LPIPS", ".3f"),
    ):
        if row[name] is not None:
            parts.append(f"{title} {row[name]:{form}}")
    parts.append(f"{(row['encode_ms'] + row['decode_ms']) / 1000:.1f} s")
    print("  ".join(parts), "->", row["output"], file=file, flush=True)
