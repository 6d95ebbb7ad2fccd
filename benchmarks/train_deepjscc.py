"""Trains a network of the bench's rival DeepJSCC (`semcast/bench/deepjscc.py`) on a CPU.

    python benchmarks/train_deepjscc.py 1/683 photos/ more.tar --minutes 10 --out deepjscc-683.safetensors

The bench takes the weights from semcast/bench/weights. MSE, Adam, AWGN of 1 to 20 dB Es/N0 drawn for each picture. The
learning rate falls from LR to 0 as half a cosine, over the time (--minutes) or over the steps (--steps: one seed gives
the same weights on one machine). The last line of stdout is one JSON object.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from scripts import summary
from semcast.bench.deepjscc import RATIOS, DeepJSCC, initialise, save_network
from semcast.cascade.device import has_bf16, keep_freed_memory
from semcast.errors import InputError
from semcast.training.data import Photos, Prefetcher, step_generator

SNR_DB = (1.0, 20.0)
SIZES = {"1/12": (128, 16), "1/96": (256, 8), "1/683": (256, 8)}  # side of a crop, crops in a batch
LR = {"1/12": 1e-3, "1/96": 2e-3, "1/683": 2e-3}  # at the start; 1e-3 is the paper's


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("ratio", choices=RATIOS)
    p.add_argument("data", nargs="+", type=Path, help="folders, tar files or pictures")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    p.add_argument("--seed", type=int, default=0)
    length = p.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    args = p.parse_args(argv)
    keep_freed_memory()
    try:
        if not (args.steps or args.minutes or 0) > 0:
            raise InputError("--minutes and --steps must be above 0")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        photos, (crop, batch) = Photos(args.data), SIZES[args.ratio]
        make = lambda step: photos.crops(crop, batch, step_generator(args.seed, step, 0))
        network, losses = train(args.ratio, make, args.seed, args.steps, args.minutes)
        facts = {"steps": len(losses), "pictures": len(photos), "crop": crop, "batch": batch, "seed": args.seed}
        save_network(network, args.ratio, args.out, facts)
    except (InputError, OSError) as error:
        print(f"train_deepjscc: {error}", file=sys.stderr)
        return 2
    tail = losses[-100:]
    print(json.dumps({"out": str(args.out), **facts, "psnr_db": -10 * math.log10(sum(tail) / len(tail))}))
    return 0


def train(
    ratio: str, make, seed: int, steps: int | None = None, minutes: float | None = None
) -> tuple[DeepJSCC, list[float]]:
    """The network and the MSE of every step.

    Args:
        make: step -> pictures [B, 3, side, side] in [0, 1].
        steps, minutes: one of them; the other None.
    """
    network = initialise(DeepJSCC(ratio), step_generator(seed, 0, 2)).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), LR[ratio])
    batches, losses, start, done = Prefetcher(make), [], time.monotonic(), 0.0
    seconds = 60 * (minutes or 0)
    total, unit = (steps, "step") if steps else (round(seconds), "s")
    try:
        with tqdm(total=total, desc=f"deepjscc {ratio}", unit=unit, disable=None) as bar:
            while done < 1:
                for group in optimiser.param_groups:
                    group["lr"] = LR[ratio] * 0.5 * (1 + math.cos(math.pi * done))
                losses.append(
                    train_step(network, optimiser, batches(len(losses)), step_generator(seed, len(losses), 1))
                )
                done = min(1.0, len(losses) / steps if steps else (time.monotonic() - start) / seconds)
                bar.update(round(done * total) - bar.n)
                bar.set_postfix(step=len(losses), mse=f"{losses[-1]:.5f}", refresh=False)
    finally:
        batches.close()
    return network, losses


def train_step(
    network: DeepJSCC, optimiser: torch.optim.Optimizer, images: torch.Tensor, generator: np.random.Generator
) -> float:
    low, high = SNR_DB
    snr_db = low + (high - low) * torch.from_numpy(generator.random(len(images), np.float32))  # [B]
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16("cpu")):
        received = network(images.contiguous(memory_format=torch.channels_last), snr_db, [generator] * len(images))
    loss = F.mse_loss(received, images)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.item()


if __name__ == "__main__":
    sys.exit(main())
