"""What noise in training is worth: receivers of one frozen encoder, trained without noise, with it, and fine-tuned on it.

    python benchmarks/ablation.py DATA --clean DIR --noisy DIR --tuned DIR --crop 512 --out benchmarks/results/ablation.json

`runs/ablation.sh` trains the three. Every receiver is measured as it was trained: `noisy` is told the noise (MMSE weights,
level and map); `clean` and `tuned`, the paper's receivers, are not. LPIPS-Alex and PSNR; 100 dB stands for no noise.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from quality import centre_crop, named, networks, one_row_a_line, rows_so_far, run, shown, transmit
from tables import NO_NOISE_DB, ablation
from tqdm import tqdm

from semcast.bench.measures import commit
from semcast.cascade.checkpoint import write_text
from semcast.data import Photos
from semcast.errors import InputError
from semcast.images import to_tensor
from semcast.link import Link
from semcast.lpips import load_lpips
from semcast.metrics import measure, reference_maps
from semcast.models import load_model

SNRS_DB = (1, 5, 10, 20, NO_NOISE_DB)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--clean", required=True, help="model whose Stage B was trained without channel noise")
    p.add_argument("--noisy", required=True, help="with it from its start")
    p.add_argument("--tuned", required=True, help="without it, then fine-tuned by a scsic preset")
    p.add_argument("--snr", type=float, nargs="+", default=SNRS_DB)
    p.add_argument("--draws", type=int, default=2)
    p.add_argument("--crop", type=int, help="centre crop to a square of this side, default: whole pictures")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--lpips", type=Path)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    links = {
        "noisy": informed(args.noisy, True),
        "clean": informed(args.clean, False),
        "tuned": informed(args.tuned, False),
    }
    if len({link.code_id for link in links.values()}) > 1:
        raise InputError("the models have different encoders; this compares receivers of one and the same")
    lpips = {"alex": load_lpips("alex", args.lpips)}
    head = {
        "schema": 1,
        "command": "python benchmarks/ablation.py " + " ".join(shown(a) for a in sys.argv[1:]),
        "networks": {name: networks(link.cascade) for name, link in links.items()},
        "commit": commit(),
    }
    photos, rows = Photos(args.data, "val"), rows_so_far(args.out, head)
    for index, picture in enumerate(tqdm(named(photos, args.limit), unit="picture")):
        if any(row["image"] == picture for row in rows):
            continue
        image = centre_crop(to_tensor(photos.read(index)), args.crop)
        maps = reference_maps(image, lpips)
        for name, link in links.items():
            for snr_db in args.snr:
                for draw, received in enumerate(transmit(link, image, snr_db, args.draws, None).split(1)):
                    quality = measure(image, received, lpips, maps)
                    found = {key: quality[key] for key in ("lpips", "psnr_db")}
                    rows.append({"receiver": name, "image": picture, "snr_db": snr_db, "draw": draw, **found})
        write_text(args.out, one_row_a_line({**head, "rows": rows}))
    print(ablation({**head, "rows": rows}))


def informed(folder: str, told: bool) -> Link:
    """The link with a receiver that is told of the channel's noise, or not."""
    cascade = load_model(folder)
    cascade.config = replace(cascade.config, noise_aware=told)
    return Link(cascade)


if __name__ == "__main__":
    run(main)
