"""One model on all channels: LPIPS under fading, multipath and erasures, with and without the noise map, and combining.

    python benchmarks/robust.py DATA --crop 512 --draws 10 --out benchmarks/results/robust.json

Rows are (condition, picture, draw); draw d of a picture uses seed d in every condition.
"""

import argparse
import copy
import json
import sys
from collections import defaultdict
from pathlib import Path

import torch
from quality import centre_crop, git, one_row_a_line, shown
from tqdm import tqdm

from semcast.cascade.checkpoint import write_text
from semcast.combining import combine
from semcast.data import Photos
from semcast.images import to_tensor
from semcast.link import Link
from semcast.lpips import load_lpips
from semcast.metrics import measure, reference_maps
from semcast.models import load_model

CONDITIONS = {  # name: channel, options, SNR in dB, receptions combined, whether the noise map is used
    "awgn 10 dB": ("awgn", {}, 10, 1, True),
    "rayleigh 10 dB": ("rayleigh", {}, 10, 1, True),
    "tdl-c, LS, 10 dB": ("tdl-c", {"estimation": "ls"}, 10, 1, True),
    "tdl-c, LS, 10 dB, no map": ("tdl-c", {"estimation": "ls"}, 10, 1, False),
    "20 % erased, 10 dB": ("erasure", {"rate": 0.2}, 10, 1, True),
    "20 % erased, 10 dB, no map": ("erasure", {"rate": 0.2}, 10, 1, False),
    "awgn 1 dB": ("awgn", {}, 1, 1, True),
    "awgn 1 dB, two receptions": ("awgn", {}, 1, 2, True),
    "awgn 4 dB": ("awgn", {}, 4, 1, True),
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--draws", type=int, default=10)
    p.add_argument("--crop", type=int, help="centre crop to a square of this side, default: whole pictures")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--model", default="small")
    p.add_argument("--lpips", type=Path)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    cascade = load_model(args.model)
    blind = copy.deepcopy(cascade)
    if cascade.config.stage_b.noise_map:
        blind.stage_b.noise_mapper.weight.data.zero_()  # it is told the mean noise, as before there were maps
    lpips = {"alex": load_lpips("alex", args.lpips)}
    photos, rows = Photos(args.data), []
    for index in tqdm(range(min(len(photos), args.limit or len(photos))), unit="picture"):
        image = centre_crop(to_tensor(photos.read(index)), args.crop)
        maps = reference_maps(image, lpips)
        for name, (channel, options, snr_db, copies, use_map) in CONDITIONS.items():
            link = Link(cascade if use_map else blind, channel, **options)
            x, header = link.send(image)
            for draw in range(args.draws):
                receptions = [link.transmit(x, snr_db, draw + 1000 * i) for i in range(copies)]
                received = combine(receptions) if copies > 1 else receptions[0]
                quality = measure(image, link.receive(received, header), lpips, maps)
                rows.append({"condition": name, "image": photos.items[index][0], "draw": draw, **quality})
    record = {
        "schema": 1,
        "command": "python benchmarks/robust.py " + " ".join(shown(a) for a in sys.argv[1:]),
        "model": cascade.config.name,
        "commit": git("rev-parse", "HEAD"),
        "torch": torch.__version__,
        "rows": rows,
    }
    write_text(args.out, one_row_a_line(record))
    values = defaultdict(list)
    for row in rows:
        values[row["condition"]].append(row["lpips"])
    print(json.dumps({name: round(sum(v) / len(v), 4) for name, v in values.items()}, indent=1))


if __name__ == "__main__":
    main()
