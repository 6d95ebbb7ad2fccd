"""How well a training run uses its machine: time of a step, and its share of waiting and of the matrix-product rate.

    python benchmarks/train_rate.py RUN_FOLDER --lpips DIR [--device cuda]

RUN_FOLDER is that of `semcast train --out`, on this machine; the first tenth of its steps is left out. The operations
of a step (convolutions and matrix products, forward and backward) are counted over the run's first COUNTED steps on
random pictures: the few-step phase walks a random number of steps and every window has a random size. The last line of
stdout is one JSON object.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from clock import matmul_tflops
from scripts import summary
from semcast.cascade.checkpoint import load_cascade
from semcast.errors import InputError
from semcast.metrics.lpips import load_lpips
from semcast.training.config import PHASES, TrainConfig
from semcast.training.data import step_generator
from semcast.training.train import backward, make_state

COUNTED = 16


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("folder", type=Path, metavar="RUN_FOLDER")
    p.add_argument("--lpips", type=Path)
    p.add_argument("--device", default="cpu")
    args = p.parse_args()
    try:
        config = TrainConfig(**json.loads((args.folder / "config.json").read_text())["config"])
        rows = [json.loads(line) for line in (args.folder / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{args.folder} holds no training run: {error}") from None
    record = {"phase": config.phase, "batch": config.batch, "crop": config.crop, **times(rows)}
    if PHASES[config.phase].fits_linear:
        raise InputError(f"the phase {config.phase} is over in minutes; measure another")
    record["tflop"] = count(args.folder / "model", config, args.lpips, args.device) / 1e12
    record["tflops"] = record["tflop"] / record["step_s"]
    record["matmul_tflops"] = matmul_tflops(args.device)
    record["share_of_matmul"] = record["tflops"] / record["matmul_tflops"]
    print(json.dumps(record))


def times(rows: list[dict]) -> dict[str, float | None]:
    """Mean time of a step in one go (a resumed run starts its clock anew), and the share that went by waiting."""
    rows = rows[len(rows) // 10 :]
    steps = [(b["time_s"] - a["time_s"], b.get("wait_s")) for a, b in zip(rows, rows[1:]) if b["time_s"] > a["time_s"]]
    if not steps:
        raise InputError("the log has too few steps; let the run go on for twenty")
    seconds, waited = zip(*steps)
    share = None if None in waited else sum(waited) / sum(seconds)  # older runs did not tell
    return {"steps": len(steps), "step_s": statistics.fmean(seconds), "share_waiting": share}


def count(model: Path, config: TrainConfig, lpips: Path | None, device: str) -> float:
    """Floating-point operations of a step, on average."""
    state = make_state(load_cascade(model), config, device)
    drawn = step_generator(0, 0, 0).random((config.batch, 3, config.crop, config.crop), np.float32)
    images = torch.from_numpy(drawn)
    network = load_lpips("vgg", lpips).to(device) if PHASES[config.phase].needs_lpips else None
    with FlopCounterMode(display=False) as counter:
        for step in range(min(COUNTED, config.steps)):
            backward(state, step, [slice(0, config.batch)], [images], network, device, None)
    return counter.get_total_flops() / min(COUNTED, config.steps)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"train_rate: {error}", file=sys.stderr)
        raise SystemExit(2) from None
