"""Analog against digital at equal channel uses: where one overtakes the other, and what believing in a wrong SNR costs each.

    python benchmarks/crossing.py DATA --crop 512 --draws 3 --out benchmarks/results/crossing.json --plot docs/crossing.png

AWGN; the same encoder and receiver networks for all. At error_db = E both ends believe in an SNR E dB above the true one:
    analog         nothing to choose, symbols are only weighed for a wrong noise variance
    digital        `--mode digital`: the mode that carries most at that SNR, filled with as fine a packet, demapped for that SNR
    digital-fixed  the mode for 10 dB at every SNR: the cliff
    mean colour    what a lost picture is scored as; it stays in every average
Outage is a lost picture, or one with LPIPS-Alex no better than its mean colour's. Draw d of a picture uses seed d for channel and
receiver, the same noise for all systems. An interrupted run goes on when its command is given again.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from quality import centre_crop, named, networks, one_row_a_line, rows_so_far, run, shown
from tables import CROSSING, OUTAGE_SNR_DB, crossing_rows, crossings, verdict
from torch import Tensor
from tqdm import tqdm

from semcast import packet
from semcast.bench.measures import commit
from semcast.cascade.checkpoint import write_text
from semcast.channel import Received, find_channel
from semcast.data import Photos
from semcast.errors import Lost
from semcast.frame import VERSION
from semcast.images import to_tensor
from semcast.link import Link, stream
from semcast.lpips import LPIPS, load_lpips
from semcast.metrics import measure, reference_maps
from semcast.models import load_model
from semcast.phy import digital
from semcast.transmitter import Header

FIXED_DB = 10
CLIFF_DB = (6, 7, 8, 8.5, 9, 9.5)  # where the fixed mode is measured too
ERRORS_DB = (-6, -4, -2, -1, 0, 1, 2, 4, 6)  # at OUTAGE_SNR_DB; elsewhere those of `tables.CROSSING`


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--snr", type=float, nargs="+", default=[-5, 0, 1, 5, 10, 15, 20])
    p.add_argument("--draws", type=int, default=3)
    p.add_argument("--crop", type=int, help="centre crop to a square of this side, default: whole pictures")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--model", default="small")
    p.add_argument("--lpips", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--plot", type=Path, help="draw the result as a PNG")
    args = p.parse_args()
    link = Link(load_model(args.model))
    lpips = {"alex": load_lpips("alex", args.lpips)}
    head = {
        "schema": 1,
        "command": "python benchmarks/crossing.py " + " ".join(shown(a) for a in sys.argv[1:]),
        "model": link.cascade.config.name,
        "networks": networks(link.cascade),
        "frame_version": VERSION,  # of packets
        "commit": commit(),
        "torch": torch.__version__,
    }
    photos, rows = Photos(args.data, "val"), rows_so_far(args.out, head)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(tqdm(named(photos, args.limit), unit="picture")):
        if not any(row["image"] == name for row in rows):
            image = centre_crop(to_tensor(photos.read(index)), args.crop)
            rows += [{"image": name, **row} for row in measure_picture(link, image, args.snr, args.draws, lpips)]
            write_text(args.out, one_row_a_line({**head, "rows": rows}))
    groups = crossing_rows({"rows": rows})
    for (system, snr_db, error_db), group in groups.items():
        print(json.dumps({"system": system, "snr_db": snr_db, "error_db": error_db, **summary(group)}))
    print(verdict(groups))
    if args.plot:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(groups, args.plot)


def points(snrs_db: list[float]) -> Iterator[tuple[str, float, float]]:
    """(system, snr_db, error_db) to measure, each once."""
    if FIXED_DB in snrs_db:
        yield from (("digital-fixed", snr_db, 0) for snr_db in CLIFF_DB if snr_db not in snrs_db)
    for snr_db in snrs_db:
        yield from ((system, snr_db, error_db) for system, error_db in CROSSING)
        if snr_db == OUTAGE_SNR_DB:
            more = [error_db for error_db in ERRORS_DB if ("analog", error_db) not in CROSSING]
            yield from ((system, snr_db, error_db) for system in ("analog", "digital") for error_db in more)


def measure_picture(link: Link, image: Tensor, snrs_db: list[float], draws: int, lpips: dict[str, LPIPS]) -> list[dict]:
    """Rows of one picture [1, 3, H, W]."""
    x, header = link.send(image)
    maps = reference_maps(image, lpips)
    colour = measure(image, packet.mean_colour(image), lpips, maps)
    none = {"snr_db": None, "error_db": 0, "draw": 0, "scheme": None, "lost": True, "outage": True}
    rows = [{"system": "mean colour", **none, **colour}]
    packets, arrived = {}, {}  # mode -> packet; mode and draw -> quality, the same at every SNR it arrives at
    for system, snr_db, error_db in points(snrs_db):
        sent, mode = (x, header), None
        if system != "analog":
            believed_db = FIXED_DB if system == "digital-fixed" else snr_db + error_db
            mode = digital.choose(x.shape[1], believed_db)
            if mode not in packets:
                packets[mode] = make_packet(link, x, header, believed_db)
            sent = packets[mode]
        for draw in range(draws):
            received = transmit(link, *sent, snr_db, error_db, draw) if sent else None
            quality = colour if received is None else arrived.get((mode, draw))
            if quality is None:
                quality = measure(image, receive(link, received, header, draw), lpips, maps)
                if mode:
                    arrived[mode, draw] = quality
            rows.append(
                {
                    "system": system,
                    "snr_db": snr_db,
                    "error_db": error_db,
                    "draw": draw,
                    "scheme": mode and str(mode),
                    "lost": received is None,
                    "outage": received is None or quality["lpips"] >= colour["lpips"],
                    **quality,
                }
            )
    return rows


def make_packet(link: Link, x: Tensor, header: Header, snr_db: float) -> tuple[Tensor, Header] | None:
    """QAM symbols [1, k] and their header; None where no mode carries a packet."""
    try:
        payload, header = packet.prepare(x, header, link.basis, snr_db)
    except Lost:
        return None
    return packet.on_air(payload, header), header


def transmit(link: Link, x: Tensor, header: Header, snr_db: float, error_db: float, draw: int) -> Received | None:
    """Symbols over AWGN to what `Link.receive` takes; None if lost."""
    received = find_channel("awgn")(x, snr_db, [stream(draw, "channel")], snr_mismatch_db=error_db)
    try:
        return link.unpack(received, header)
    except Lost:
        return None


def receive(link: Link, received: Received, header: Header, draw: int) -> Tensor:
    return link.receive(received, replace(header, seed=draw))


def summary(rows: list[dict]) -> dict[str, float]:
    return {key: round(sum(row[key] for row in rows) / len(rows), 4) for key in ("lpips", "psnr_db", "lost", "outage")}


STYLES = {  # colour, dashes, width
    ("analog", 0): ("#c0392b", "-", 2.2),
    ("digital", 0): ("#1f77b4", "-", 2.2),
    ("digital-fixed", 0): ("#5d6d7e", "-", 1.4),
    ("analog", 6): ("#c0392b", ":", 1.2),
    ("digital", 6): ("#1f77b4", ":", 1.2),
    ("analog", -6): ("#c0392b", "--", 1.2),
    ("digital", -6): ("#1f77b4", "--", 1.2),
}


def plot(groups: dict[tuple, list[dict]], path: Path) -> None:
    """LPIPS-Alex over SNR, and outage over the error of the believed SNR."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mean = {key: summary(rows) for key, rows in groups.items()}
    snrs = sorted({snr for system, snr, _ in groups if system == "analog"})
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))

    curves = {}
    for key, label in CROSSING.items():
        colour, dashes, width = STYLES[key]
        at = sorted(snr for system, snr, error in groups if (system, error) == key)
        curves[key] = [mean[key[0], snr, key[1]]["lpips"] for snr in at]
        left.plot(at, curves[key], dashes, color=colour, linewidth=width, marker=".", label=label)
    left.axhline(mean["mean colour", None, 0]["lpips"], color="black", linewidth=0.8, linestyle="-.", label="mean colour: lost")
    for i, snr in enumerate(crossings(snrs, curves["analog", 0], curves["digital", 0])):
        height = interpolate(snr, snrs, curves["analog", 0])
        left.plot([snr], [height], "o", color="black", markersize=9, fillstyle="none", label=None if i else "analog and digital cross")
        left.annotate(f"{snr:.1f} dB", (snr, height), xytext=(8, 8), textcoords="offset points")
    left.set(xlabel="SNR, dB", ylabel="LPIPS-Alex, less is better", title="Equal channel uses, AWGN")
    left.legend(fontsize=8)

    for system, width in (("digital", 4), ("analog", 1.6)):  # the thin line over the thick one
        errors = sorted({error for name, snr, error in groups if (name, snr) == (system, OUTAGE_SNR_DB)})
        outage = [100 * mean[system, OUTAGE_SNR_DB, error]["outage"] for error in errors]
        right.plot(errors, outage, color=STYLES[system, 0][0], linewidth=width, marker=".", label=CROSSING[system, 0])
    ylabel = "lost, or no better than the mean colour, % of pictures"
    right.set(xlabel="SNR believed in, minus the true one, dB", ylabel=ylabel, ylim=(-3, 103), title=f"Outage at {OUTAGE_SNR_DB} dB")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def interpolate(at: float, x: list[float], y: list[float]) -> float:
    i = next(i for i in range(len(x) - 1) if x[i + 1] >= at)
    return y[i] + (y[i + 1] - y[i]) * (at - x[i]) / (x[i + 1] - x[i])


if __name__ == "__main__":
    run(main)
