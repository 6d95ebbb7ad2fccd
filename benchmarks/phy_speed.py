"""Throughput of the digital link's decoder and of OFDM over a multipath channel, on one core, batched.

    python benchmarks/phy_speed.py --out benchmarks/results/phy_speed.json

Decoder: demapping, up to 20 iterations of belief propagation and the CRC, bits of payload a second. OFDM: transmitter,
pilots, TDL-C, noise, LS estimate and equaliser for the symbols of one 512x512 picture. Medians after a warm-up.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from scripts import summary
from semcast.bench.cost import cpu_name
from semcast.bench.versions import commit
from semcast.channels.catalogue import find_channel
from semcast.files import write_text
from semcast.modulation import ldpc
from semcast.modulation import mcs as schemes
from semcast.randomness import seeded

USES = 1152  # of a 512x512 picture
SCHEMES = ("qpsk 1/2", "16qam 1/2", "64qam 3/4", "256qam 5/6")


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    table = {str(mcs): mcs for mcs in schemes.TABLE}
    record = {
        "schema": 1,
        "decoder": [decoder(table[name], args.batch, args.runs) for name in SCHEMES],
        "ofdm": ofdm(args.batch, args.runs),
        "commit": commit(),
        "machine": {"cpu": cpu_name(), "threads": 1, "python": platform.python_version(), "torch": torch.__version__},
    }
    if args.out:
        write_text(args.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


def decoder(mcs: schemes.Mcs, batch: int, runs: int) -> dict:
    """At the SNR where one block in a hundred is lost."""
    size = schemes.plan(USES, mcs).payload_bytes
    payloads = [seeded(i).bytes(size) for i in range(batch)]
    snr_db = schemes.threshold_db(USES, mcs)
    received = find_channel("awgn")(ldpc.encode(payloads, USES, mcs), snr_db, [seeded(i) for i in range(batch)])
    seconds = median_time(lambda: ldpc.decode(received, mcs), runs)
    lost = sum(block is None for block in ldpc.decode(received, mcs))
    return {
        "scheme": str(mcs),
        "snr_db": round(snr_db, 2),
        "lost": lost,
        "kbit_s": round(8 * size * batch / seconds / 1e3, 1),
    }


def ofdm(batch: int, runs: int) -> dict:
    x = seeded(0).standard_normal((batch, USES, 2), np.float32).view(np.complex64)[..., 0]
    channel, generators = find_channel("tdl-c"), [seeded(i) for i in range(batch)]
    seconds = median_time(lambda: channel(x, 10.0, generators, estimation="ls"), runs)
    return {"channel": "tdl-c", "estimation": "ls", "ms_per_picture": round(1e3 * seconds / batch, 3)}


def median_time(run, runs: int) -> float:
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
