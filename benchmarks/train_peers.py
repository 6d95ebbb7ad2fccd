"""Trains a network of the rivals Img2Img-SC, GESCO, DIFFSC or CASC (`semcast/bench/peers`), on a CPU or a GPU.

    python benchmarks/train_peers.py ae8 photos/ more.tar --lpips LPIPS --minutes 60 --out peers
    python benchmarks/train_peers.py gesco streets.tar --labels labels.tar --minutes 60 --out peers

`runs/peers.sh` trains all, one after the other; U-Nets need their autoencoder in --out. Killed or interrupted, it leaves
PART.checkpoint.safetensors, from which the same command goes on; a part that is there already is left alone. The last
line of stdout is one JSON object: minutes, the curve of the loss, whether it had flattened. The file of weights keeps it.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

import torch
from scripts import summary
from torch import nn

from semcast.bench.cost import cpu_name
from semcast.bench.peers.autoencoder import Autoencoder
from semcast.bench.peers.latents import COUNT, labelled_latents, labelled_pairs, photo_latents, window
from semcast.bench.peers.maps import count_maps, save_counts
from semcast.bench.peers.objectives import autoencoder_loss, denoiser_loss, standardise
from semcast.bench.peers.parts import MAP_CODER, PARTS, check_parts, file_hash, save_part, weights_path
from semcast.bench.peers.training import fall, flattened, learn
from semcast.cascade.device import keep_freed_memory, pick_device
from semcast.errors import InputError
from semcast.files import make_folder
from semcast.metrics.lpips import load_lpips
from semcast.metrics.segmenter import Labels
from semcast.training.data import Photos, Prefetcher, step_generator

GPU_BATCHES = 12  # times the batch of a CPU
LR = {"autoencoder": 6e-4, "denoiser": 4e-4}
CROP = {"ae8": 128, "ae16": 160, "ae32": 192}  # side in pixels, on a CPU; 256 on a GPU
LPIPS_SIDE = {"cpu": 64, "cuda": 128}
BATCH = {"ae8": 4, "ae16": 4, "ae32": 4, "img2img": 8, "gesco": 8}  # of pictures, on a CPU
BATCH |= {"diffsc16": 12, "casc16": 12, "diffsc32": 32, "casc32": 32}
WINDOW = 32  # side of a latent that a U-Net learns from; photos' latents at strides 16 and 32 are smaller
STATISTICS = 16  # batches


class Stopped(Exception):
    """The run was asked to end; its checkpoint is written."""


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("part", choices=(*PARTS, MAP_CODER))
    p.add_argument("data", nargs="+", type=Path, help="folders, tar files or pictures")
    p.add_argument("--labels", type=Path, help="folder or tar file of PNG, for gesco and maps")
    p.add_argument("--lpips", type=Path, metavar="DIR", help="folder of LPIPS weights, for autoencoders")
    p.add_argument("--out", type=Path, required=True, metavar="DIR")
    p.add_argument("--device", default="auto", help="cpu, cuda or auto, the default")
    p.add_argument("--batch", type=int, help="pictures in a step")
    p.add_argument("--latents", type=int, default=COUNT, help="crops whose latents are kept, default: %(default)s")
    p.add_argument("--seed", type=int, default=0)
    length = p.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    args = p.parse_args(argv)
    keep_freed_memory()
    try:
        print(json.dumps(run(args)))
    except (InputError, OSError) as error:
        print(f"train_peers: {error}", file=sys.stderr)
        return 2
    except Stopped as error:
        print(f"train_peers: {error}", file=sys.stderr)
        return 130
    return 0


def run(args) -> dict:
    """Train a part, unless it is there; what is said of it at the end."""
    path = weights_path(args.part, make_folder(args.out))
    if path.exists():
        return {"out": str(path), "left": "it was there already"}
    if args.part != MAP_CODER and not (args.steps or args.minutes or 0) > 0:
        raise InputError("--minutes or --steps is needed, and must be above 0")
    if min(args.latents, 1 if args.batch is None else args.batch) < 1:
        raise InputError("--batch and --latents must be above 0")
    photos = Photos(args.data)
    if args.part == MAP_CODER:
        pairs = pairs_of(photos, args)
        save_counts(count_maps([classes for _, classes in pairs]), path, {"pictures": len(pairs)})
        return {"out": str(path), "pictures": len(pairs), "bytes": path.stat().st_size}
    args.device = pick_device(args.device)
    torch.manual_seed(args.seed)
    network = PARTS[args.part].build().to(args.device)
    train = train_autoencoder if isinstance(network, Autoencoder) else train_denoiser
    facts = train(network, photos, args)
    facts["parameters"] = sum(p.numel() for p in network.parameters())
    save_part(network, args.part, path, facts)
    checkpoint(args).unlink(missing_ok=True)
    return {"out": str(path), "bytes": path.stat().st_size, **facts}


def train_autoencoder(network: nn.Module, photos: Photos, args) -> dict:
    assert isinstance(network, Autoencoder)
    lpips = load_lpips("vgg", args.lpips).to(args.device)
    gpu = args.device.startswith("cuda")
    crop, side = 256 if gpu else CROP[args.part], LPIPS_SIDE["cuda" if gpu else "cpu"]
    make = lambda step: photos.crops(crop, batch(args), step_generator(args.seed, step, 0))
    batches = Prefetcher(make)
    try:
        loss = autoencoder_loss(batches, lpips, side, args.seed, args.device)
        facts = go(network, loss, args, LR["autoencoder"], {"crop": crop, **photos.fingerprint()})
    finally:
        batches.close()
    if not network.config.through_channel:
        standardise(network, lambda i: make(-1 - i), STATISTICS, args.device)
    return facts


def train_denoiser(network: nn.Module, photos: Photos, args) -> dict:
    name = PARTS[args.part].latents
    check_parts(name, folder=args.out)
    if PARTS[args.part].labelled:
        latents = labelled_latents(name, pairs_of(photos, args), args.out, args.device)
    else:
        latents = photo_latents(name, photos, args.out, args.seed, args.device, args.latents)
    data = lambda generator: window(latents, WINDOW, batch(args), generator)
    loss = denoiser_loss(data, args.seed, args.device)
    key = {name: file_hash(weights_path(name, args.out)), "latents": len(latents["z"]), **photos.fingerprint()}
    return go(network, loss, args, LR["denoiser"], key)


def go(network: nn.Module, loss, args, lr: float, key: dict) -> dict:
    """Train until the end; on SIGINT or SIGTERM, leave a checkpoint and raise `Stopped`."""
    asked = []
    before = {kind: signal.signal(kind, lambda *_: asked.append(True)) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        facts = {"batch": batch(args), "seed": args.seed, **key}
        progress, ended = learn(
            network,
            loss,
            checkpoint(args),
            lr=lr,
            key={"part": args.part, "steps": args.steps, **facts},
            steps=args.steps,
            minutes=args.minutes,
            stop=lambda step: bool(asked),
            title=args.part,
        )
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    if not ended:
        raise Stopped(f"stopped after {progress.step} steps of {args.part}; the same command goes on")
    return {
        "steps": progress.step,
        "minutes": round(progress.seconds / 60, 2),
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else cpu_name(),
        "batch": batch(args),
        "pictures": key["pictures"],
        "seed": args.seed,
        "loss_first": round(sum(progress.first) / len(progress.first), 5),
        "loss": round(progress.loss, 5),
        "fall_of_last_fifth": fall(progress.curve),
        "flattened": flattened(progress.curve),
        "curve": progress.curve,  # [step, seconds, mean loss since the point before]
    }


def checkpoint(args) -> Path:
    return args.out / f"{args.part}.checkpoint.safetensors"


def batch(args) -> int:
    return args.batch or BATCH[args.part] * (GPU_BATCHES if args.device.startswith("cuda") else 1)


def pairs_of(photos: Photos, args) -> list:
    if args.labels is None:
        raise InputError(f"{args.part} learns from labels: name them with --labels")
    pairs = labelled_pairs(photos, Labels(args.labels))
    if not pairs:
        raise InputError(f"no picture in {', '.join(map(str, args.data))} has a label in {args.labels}")
    return pairs


if __name__ == "__main__":
    sys.exit(main())
