"""What the transforms of `--mode digital` are worth: bytes of a packet at one quality, without and with KLT and DCT.

    python benchmarks/packet_gain.py DATA --crop 512 --out benchmarks/results/packet_gain.json

For every picture and set of transforms the coarsest quantiser whose error (of x, which has unit power) is at most
ERROR_DB, and the bytes of its packet.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scripts import command_line, read_pictures, script, summary
from semcast.bench.ours import model_version
from semcast.bench.records import one_row_a_line
from semcast.bench.versions import commit
from semcast.cascade.config import LATENT_CHANNELS
from semcast.cascade.engine import load_model
from semcast.files import write_text
from semcast.link import Link
from semcast.modulation import packet
from semcast.modulation.digital import Digital

ERROR_DB = -8.0
TRANSFORMS = {  # name: KLT or not, how many of the channels go through the DCT
    "none": (False, 0),
    "KLT": (True, 0),
    f"KLT, DCT of the {packet.SMOOTH} strongest": (True, packet.SMOOTH),
    "KLT, DCT of all": (True, LATENT_CHANNELS),
}


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--crop", type=int, help="centre crop to a square of this side, default: whole pictures")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--model", default="small")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    link, rows = Link(load_model(args.model)), []
    digital = Digital(link.engine)
    names, pictures = read_pictures(args.data, args.crop, args.limit)
    for name, read in zip(names, tqdm(pictures, unit="picture")):
        header, x = link.send(read())
        assert isinstance(x, np.ndarray)
        for transforms, (klt, packet.SMOOTH) in TRANSFORMS.items():
            packet.groups.cache_clear()
            numbers = packet.transform(x, header.latent_shape, digital.basis if klt else np.eye(LATENT_CHANNELS))
            rows.append({"image": name, "transforms": transforms, "draw": 0, "size_bytes": size_bytes(numbers)})
    record = {
        "schema": 1,
        "command": command_line(),
        "systems": {"semcast": model_version(args.model)},
        "frame_version": packet.VERSION,
        "commit": commit(),
        "error_db": ERROR_DB,
        "rows": rows,
    }
    write_text(args.out, one_row_a_line(record))
    for transforms in TRANSFORMS:
        sizes = [row["size_bytes"] for row in rows if row["transforms"] == transforms]
        print(json.dumps({"transforms": transforms, "size_bytes": round(sum(sizes) / len(sizes), 1)}))


def size_bytes(numbers: np.ndarray) -> int:
    """Of the packet with the coarsest step whose error is at most ERROR_DB."""
    for index in range(256):
        q = packet.quantise(numbers, index)
        scales = packet.choose_scales(q)
        if scales is None:
            continue
        error = 2 * np.square(numbers - packet.dequantise(q, scales, index)).mean()
        if 10 * math.log10(error) <= ERROR_DB:
            return len(packet.attempt(numbers, index, 1 << 16) or b"")
    raise AssertionError("256 steps are fine enough for any error")


if __name__ == "__main__":
    script(main)
