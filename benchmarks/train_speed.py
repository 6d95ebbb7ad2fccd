"""Time and memory of a fine-tuning step (phase denoise), with and without recomputing activations.

    python benchmarks/train_speed.py                       `small` on a CPU, the official lite size on a GPU
    python benchmarks/train_speed.py --size tiny --crop 64 a rehearsal

Random weights and pictures: neither changes the time. Peak memory is what torch allocated (GPU), or that of a fresh
process for each (CPU). The last line of stdout is one JSON object.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scripts import summary
from semcast.cascade.config import STAGE_B_BIG, STAGE_B_LITE, ModelConfig, small_config
from semcast.cascade.model import Cascade
from semcast.files import write_text
from semcast.training.config import PRESETS
from semcast.training.data import step_generator
from semcast.training.losses import BUCKETS, Step, bf16
from semcast.training.phases import LOSSES
from semcast.training.train import make_optimiser

TINY = replace(
    small_config(),
    stage_b=replace(
        small_config().stage_b, hidden=(16, 16, 24, 32), heads=(0, 0, 0, 2), down_blocks=(1,) * 4, up_blocks=(1,) * 4
    ),
)
STEPS = PRESETS["scsic-1024"].steps


def main() -> None:
    gpu = torch.cuda.is_available()
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--size", choices=("tiny", "small", "lite", "big"), default="lite" if gpu else "small")
    p.add_argument("--crop", type=int, default=1024 if gpu else 256)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--optimiser", default="adamw", choices=("adamw", "adamw8bit"))
    p.add_argument("--out", type=Path)
    p.add_argument("--only", choices=("plain", "recompute"), help=argparse.SUPPRESS)  # the fresh process
    args = p.parse_args()
    device = torch.device("cuda" if gpu else "cpu")
    if args.only:
        print(json.dumps(measure(args, args.only == "recompute", device)))
        return
    rows = [measure(args, recompute, device) if gpu else in_fresh_process(recompute) for recompute in (False, True)]
    for row in rows:
        print(row, file=sys.stderr)
    record = {
        "size": args.size,
        "crop": args.crop,
        "batch": args.batch,
        "optimiser": args.optimiser,
        "steps": STEPS,
        "rows": rows,
    }
    record["machine"] = {"device": torch.cuda.get_device_name() if gpu else "cpu", "torch": torch.__version__}
    if args.out:
        write_text(args.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


def in_fresh_process(recompute: bool) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], "--only", "recompute" if recompute else "plain"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def network(size: str) -> Cascade:
    if size == "small":
        return Cascade(small_config())
    if size == "tiny":
        return Cascade(TINY)
    return Cascade(ModelConfig(name="random", licence="none", stage_b=STAGE_B_LITE if size == "lite" else STAGE_B_BIG))


def measure(args, recompute: bool, device: torch.device) -> dict:
    """Median step of the loop's own loss and optimiser; data loading is not in it."""
    config = replace(
        PRESETS["scsic-1024"], batch=args.batch, crop=args.crop, window=0, recompute=recompute, optimiser=args.optimiser
    )
    cascade = network(args.size).to(device).eval().requires_grad_(False)
    cascade.stage_b.requires_grad_(True).train()
    cascade.stage_b.recompute = recompute
    parameters: dict[str, torch.Tensor] = dict(cascade.stage_b.named_parameters())
    optimiser = make_optimiser(parameters, config)
    loss_function = LOSSES[config.phase]
    drawn = step_generator(0, 0, 0).random((args.batch, 3, args.crop, args.crop), np.float32)
    images = torch.from_numpy(drawn).to(device)
    times = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for run in range(args.runs + 2):
        start = time.perf_counter()
        step = Step(step_generator(0, run, 1), args.batch, slice(None), device, torch.ones(BUCKETS, device=device))
        with bf16(device, True):
            loss = loss_function(cascade, images, step, config)["denoise"].mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), config.clip)
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[2:])
    peak_kib = (
        torch.cuda.max_memory_allocated() / 2**10
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {
        "recompute": recompute,
        "step_ms": seconds * 1e3,
        "projected_minutes": seconds * STEPS / 60,
        "peak_gib": peak_kib / 2**20,
    }


if __name__ == "__main__":
    main()
