"""Measure the digital link's block error curves on AWGN, the table behind its link adaptation.

    python benchmarks/bler.py --k 1152 --errors 30 --blocks 2000

A point stops at --errors lost blocks or at --blocks. Every point is saved as soon as it is measured; a second run goes
on where the first stopped, or extends its points. Block i of a point has seed i: its payload and its noise.
"""

import argparse
import json
import platform
import random
import time
from datetime import UTC, datetime

import torch

from scripts import summary
from semcast.bench.cost import cpu_name
from semcast.bench.records import one_row_a_line
from semcast.bench.versions import commit
from semcast.files import write_text
from semcast.modulation.ldpc import deliver
from semcast.modulation.mcs import BITS, CURVES, TABLE, Mcs, bound_db, plan
from semcast.randomness import stream

STEP_DB = 0.25  # grid of SNRs
FIRST_DB = 0.2  # a bit per symbol: where to start above the best code there could be; QAM and rate cost that much
DONE = 0.01  # go up until so few are lost
BATCH = 50


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--k", type=int, nargs="+", default=[1152, 4608], help="complex channel uses")
    p.add_argument("--mcs", nargs="+", metavar="MCS", help="such as 'qpsk 1/2', default: the whole table")
    p.add_argument("--errors", type=int, default=30)
    p.add_argument("--blocks", type=int, default=2000)
    p.add_argument("--seconds", type=float, help="stop after so long; run again to go on")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    args.stop = time.monotonic() + (args.seconds or 1e9)
    rows = json.loads(CURVES.read_text())["rows"] if CURVES.exists() else []
    for k in args.k:
        for mcs in TABLE:
            if not args.mcs or str(mcs) in args.mcs:
                walk(rows, k, mcs, args)


def walk(rows: list[dict], k: int, mcs: Mcs, args) -> None:
    """Up the grid until almost nothing is lost; then down from the first point until most is."""
    first = round((bound_db(k, mcs, DONE) + FIRST_DB * BITS[mcs.modulation]) / STEP_DB) * STEP_DB
    snr_db = first
    while measure(rows, k, mcs, snr_db, args) > DONE:
        snr_db += STEP_DB
    snr_db = first - STEP_DB
    while measure(rows, k, mcs, snr_db + STEP_DB, args) < 0.3:
        measure(rows, k, mcs, snr_db, args)
        snr_db -= STEP_DB


def measure(rows: list[dict], k: int, mcs: Mcs, snr_db: float, args) -> float:
    """The share of lost blocks at one point, measured as far as asked and saved."""
    key = {"modulation": mcs.modulation, "rate": str(mcs.rate), "k": k, "snr_db": snr_db}
    row = next((r for r in rows if key.items() <= r.items()), None)
    if row is None:
        row = key | {"blocks": 0, "lost": 0}
        rows.append(row)
    size = plan(k, mcs).payload_bytes
    while row["lost"] < args.errors and row["blocks"] < args.blocks:
        if time.monotonic() > args.stop:
            raise SystemExit("out of time; run again to go on")
        seeds = range(row["blocks"], min(row["blocks"] + BATCH, args.blocks))
        payloads = [random.Random(seed).randbytes(size) for seed in seeds]
        arrived = deliver(payloads, k, mcs, snr_db, [stream(seed, "bler") for seed in seeds])
        row["blocks"] += len(payloads)
        row["lost"] += sum(a != p for a, p in zip(arrived, payloads))
        save(rows)
    print(f"{mcs}, k {k}, {snr_db:g} dB: {row['lost']} of {row['blocks']}", flush=True)
    return row["lost"] / row["blocks"]


def save(rows: list[dict]) -> None:
    order = {(mcs.modulation, str(mcs.rate)): i for i, mcs in enumerate(TABLE)}
    kept = sorted(
        (r for r in rows if r["blocks"]), key=lambda r: (r["k"], order[r["modulation"], r["rate"]], r["snr_db"])
    )
    record = {
        "schema": 1,
        "about": "blocks sent and lost on AWGN, by benchmarks/bler.py; a block fills k complex uses and has one CRC",
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "rows": kept,
    }
    write_text(CURVES, one_row_a_line(record))


if __name__ == "__main__":
    main()
