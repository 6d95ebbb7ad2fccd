"""Trains a network of the rivals Img2Img-SC, GESCO, DIFFSC or CASC (`semcast/bench/peers`), on a CPU or a GPU.

    python benchmarks/train_peers.py stage_a photos/ --out peers
    python benchmarks/train_peers.py ae8 photos/ more.tar --minutes 60 --out peers
    python benchmarks/train_peers.py gesco streets.tar --labels labels.tar --minutes 60 --out peers

`runs/peers.sh` trains all, one after the other: Stage A, which is that of the shipped model, is copied, autoencoders need
it in --out, and U-Nets their autoencoder. Killed or interrupted, it leaves
PART.checkpoint.safetensors, from which the same command goes on; a part that is there already is left alone. The last
line of stdout is one JSON object: minutes, the curve of the loss, whether it had flattened. The file of weights keeps it.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from scripts import summary
from semcast.bench.cost import cpu_name
from semcast.bench.peers.autoencoder import Autoencoder
from semcast.bench.peers.latents import COUNT, Latents, labelled_latents, labelled_pairs, photo_latents, window
from semcast.bench.peers.maps import count_maps, save_counts
from semcast.bench.peers.objectives import autoencoder_loss, denoiser_loss, standardise
from semcast.bench.peers.parts import MAP_CODER, PARTS, STAGE_A, check_parts, file_hash, save_part, weights_path
from semcast.bench.peers.training import fall, flattened, learn
from semcast.cascade.checkpoint import load_cascade
from semcast.cascade.device import keep_freed_memory, pick_device
from semcast.cascade.models import WEIGHTS
from semcast.errors import InputError
from semcast.files import make_folder
from semcast.metrics.segmenter import Labels
from semcast.training.data import Photos, step_generator

GPU_BATCHES = 12  # times the batch of a CPU
LR = {"autoencoder": 6e-4, "denoiser": 4e-4}
BATCH = {"ae8": 8, "ae16": 8, "ae32": 8, "img2img": 8, "gesco": 8}  # of pictures, on a CPU
BATCH |= {"diffsc16": 4, "casc16": 4, "diffsc32": 16, "casc32": 16}
WINDOW = {"ae8": 32, "ae16": 48, "ae32": 64}  # side of what a network sees of the latents that it learns from
WINDOW_DENOISER = 32
STATISTICS = 16  # batches


class Stopped(Exception):
    """The run was asked to end; its checkpoint is written."""


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("part", choices=(*PARTS, MAP_CODER))
    p.add_argument("data", nargs="+", type=Path, help="folders, tar files or pictures")
    p.add_argument("--labels", type=Path, help="folder or tar file of PNG, for gesco and maps")
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
    if args.part not in (MAP_CODER, STAGE_A) and not (args.steps or args.minutes or 0) > 0:
        raise InputError("--minutes or --steps is needed, and must be above 0")
    if min(args.latents, 1 if args.batch is None else args.batch) < 1:
        raise InputError("--batch and --latents must be above 0")
    photos = Photos(args.data)
    if args.part == MAP_CODER:
        pairs = pairs_of(photos, args)
        save_counts(count_maps([classes for _, classes in pairs]), path, {"pictures": len(pairs)})
        return {"out": str(path), "pictures": len(pairs), "bytes": path.stat().st_size}
    if args.part == STAGE_A:
        save_part(load_cascade(WEIGHTS / "small", torch.float32).stage_a, STAGE_A, path, {"of": "small"})
        return {"out": str(path), "bytes": path.stat().st_size}
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
    latents = latents_of(photos, args)
    data = lambda generator: window(latents, WINDOW[args.part], batch(args), generator)
    facts = go(
        network, autoencoder_loss(data, args.seed, args.device), args, LR["autoencoder"], key_of(photos, latents, args)
    )
    if not network.config.through_channel:
        batches = (data(step_generator(args.seed, i, 1))["z"] for i in range(STATISTICS))
        standardise(network, batches, args.device)
    return facts


def train_denoiser(network: nn.Module, photos: Photos, args) -> dict:
    latents = latents_of(photos, args)
    data = lambda generator: window(latents, WINDOW_DENOISER, batch(args), generator)
    return go(network, denoiser_loss(data, args.seed, args.device), args, LR["denoiser"], key_of(photos, latents, args))


def latents_of(photos: Photos, args) -> Latents:
    name = PARTS[args.part].latents
    check_parts(STAGE_A, name, folder=args.out)
    if PARTS[args.part].labelled:
        return labelled_latents(name, pairs_of(photos, args), args.out, args.device)
    return photo_latents(name, photos, args.out, args.seed, args.device, args.latents)


def key_of(photos: Photos, latents: Latents, args) -> dict:
    """What a run that goes on must have as it was, beside its settings."""
    name = PARTS[args.part].latents
    return {name: file_hash(weights_path(name, args.out)), "latents": len(latents["z"]), **photos.fingerprint()}


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
