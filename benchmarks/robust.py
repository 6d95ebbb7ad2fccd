"""One model on all channels: LPIPS under fading, multipath, erasures and a wrong SNR, and what knowing the noise is worth.

    python benchmarks/robust.py DATA --crop 512 --draws 10 --out benchmarks/results/robust.json

Three receivers, one model. "map" knows the noise of every symbol: MMSE weights, and the noise map of Stage B. "no map": MMSE weights and
the mean noise, which is what Stage B was told before there were maps. "one variance": see `one_variance`.
With --blind, a fourth: a model that was trained without ever being told the noise (`"noise_aware": false` in its config.json), the
paper's kind of receiver: equalised symbols as they are, zeros for lost ones. `runs/blind.sh` trains it.
Rows are (condition, picture, draw); draw d of a picture uses seed d for channel and receiver in every condition. An interrupted
run goes on when its command is given again.
"""

import argparse
import copy
import json
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from quality import centre_crop, named, networks, one_row_a_line, rows_so_far, run, shown
from tqdm import tqdm

from semcast.bench.measures import commit
from semcast.cascade.checkpoint import write_text
from semcast.channel import Received
from semcast.combining import combine
from semcast.data import Photos
from semcast.errors import InputError
from semcast.images import to_tensor
from semcast.link import Link
from semcast.lpips import load_lpips
from semcast.metrics import measure, reference_maps
from semcast.models import load_model

CONDITIONS = {  # name: channel, options, SNR in dB, receptions combined, receiver
    "awgn 10 dB": ("awgn", {}, 10, 1, "map"),
    "awgn 10 dB, told 16 dB": ("awgn", {"snr_mismatch_db": 6}, 10, 1, "map"),
    "awgn 10 dB, told 4 dB": ("awgn", {"snr_mismatch_db": -6}, 10, 1, "map"),
    "rayleigh 10 dB": ("rayleigh", {}, 10, 1, "map"),
    "tdl-c, LS, 10 dB": ("tdl-c", {"estimation": "ls"}, 10, 1, "map"),
    "tdl-c, LS, 10 dB, no map": ("tdl-c", {"estimation": "ls"}, 10, 1, "no map"),
    "tdl-c, LS, 10 dB, one variance": ("tdl-c", {"estimation": "ls"}, 10, 1, "one variance"),
    "20 % erased, 10 dB": ("erasure", {"rate": 0.2}, 10, 1, "map"),
    "20 % erased, 10 dB, no map": ("erasure", {"rate": 0.2}, 10, 1, "no map"),
    "20 % erased, 10 dB, one variance": ("erasure", {"rate": 0.2}, 10, 1, "one variance"),
    "awgn 1 dB": ("awgn", {}, 1, 1, "map"),
    "awgn 1 dB, two receptions": ("awgn", {}, 1, 2, "map"),
    "awgn 4 dB": ("awgn", {}, 4, 1, "map"),
}

BLIND = {f"{name}, blind": (*CONDITIONS[name][:4], "blind") for name in ("awgn 10 dB", "tdl-c, LS, 10 dB", "20 % erased, 10 dB")}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--draws", type=int, default=10)
    p.add_argument("--crop", type=int, help="centre crop to a square of this side, default: whole pictures")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--model", default="small")
    p.add_argument("--blind", action="store_true", help="the model is not told the noise: measure it where that matters")
    p.add_argument("--lpips", type=Path)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    cascade = load_model(args.model)
    if cascade.config.noise_aware == args.blind:
        raise InputError(f"{args.model} is {'told' if args.blind else 'not told'} the noise; --blind is for models that are not")
    blind = copy.deepcopy(cascade)
    if cascade.config.stage_b.noise_map:
        blind.stage_b.noise_mapper.weight.data.zero_()  # it is told the mean noise, as before there were maps
    lpips = {"alex": load_lpips("alex", args.lpips)}
    head = {
        "schema": 1,
        "command": "python benchmarks/robust.py " + " ".join(shown(a) for a in sys.argv[1:]),
        "model": cascade.config.name,
        "networks": networks(cascade),
        "commit": commit(),
        "torch": torch.__version__,
    }
    photos, rows = Photos(args.data, "val"), rows_so_far(args.out, head)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(tqdm(named(photos, args.limit), unit="picture")):
        if any(row["image"] == picture for row in rows):
            continue
        image = centre_crop(to_tensor(photos.read(index)), args.crop)
        maps = reference_maps(image, lpips)
        for name, (channel, options, snr_db, copies, receiver) in (BLIND if args.blind else CONDITIONS).items():
            link = Link(blind if receiver == "no map" else cascade, channel, **options)
            x, header = link.send(image)
            for draw in range(args.draws):
                receptions = [link.transmit(x, snr_db, draw + 1000 * i) for i in range(copies)]
                received = combine(receptions) if copies > 1 else receptions[0]
                if receiver == "one variance":
                    received = one_variance(received)
                quality = measure(image, link.receive(received, replace(header, seed=draw)), lpips, maps)
                rows.append({"condition": name, "image": picture, "draw": draw, **quality})
        write_text(args.out, one_row_a_line({**head, "rows": rows}))
    values = defaultdict(list)
    for row in rows:
        values[row["condition"]].append(row["lpips"])
    print(json.dumps({name: round(sum(v) / len(v), 4) for name, v in values.items()}, indent=1))


def one_variance(received: Received) -> Received:
    """What a receiver is told that does not know where the noise is: y / h [B, K], h = 1 and one noise_var [B, 1].

    A modem that hands over equalised symbols and one SNR for all of them. Its noise_var is the mean noise after equalising
    over the symbols that arrived, which makes 1 / (1 + noise_var) the best single MMSE weight: for y = x + e, E[conj(x) y] /
    E|y|^2 is just that, and zeros for lost symbols leave the ratio as it is. So:
    OFDM with LS: y is equalised, h = 1 already. In a deep fade a few symbols have hundreds of times the noise; the mean is
        mostly theirs, and they stay as large as division by a small h made them.
    Erasures: a lost symbol is a zero like any other number, believed to have the noise of those that arrived (the channel's).
    """
    y, h, noise_var = received
    power = h.abs().square().clamp_min(1e-12)
    noise = (noise_var / power).expand(y.shape)
    arrived = noise.isfinite()
    mean = noise.where(arrived, 0).sum(dim=1, keepdim=True) / arrived.sum(dim=1, keepdim=True)
    return Received((h.conj() * y / power).where(arrived, 0), torch.ones_like(y[:, :1]), mean)


if __name__ == "__main__":
    run(main)
