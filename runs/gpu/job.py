"""Train `small` further on one GPU by the clock: first the base, from pixels to pixels, then the layers above it.

Schedules follow the share of the time that is spent, so nothing depends on the machine's speed. See README.md beside
this file for what it needs, what it gives and how to rehearse it on a CPU.

    python runs/gpu/job.py --data DIR ... --nets FILE --init MODEL --out DIR --deadline SECONDS
"""

import argparse
import copy
import json
import math
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from air import Air
from learner import Learner
from nets import Critic, Features
from objective import Objective
from phases import base_picture, base_step, ladder_step
from pictures import load_pictures, loader
from PIL import Image
from safetensors.torch import load_file, save_file

from semcast.cascade.checkpoint import load_cascade, save_model
from semcast.cascade.model import Cascade

BEGAN = time.time()
EDGES = ("embedding", "clf.", "in_block", "out_block", "stage_a.up_blocks.0.", "enc_in", "enc_out", "base_in")
EDGES += ("enhancement.z_", "enhancement.out")
SHEET_SIDE = 320  # pixels of a picture on the sheet
BASE_WEIGHTS = {"l1": 1.5, "mean": 2.0, "vgg": 1.0, "half": 0.5, "lite": 0.3, "grid": 10.0, "spectrum": 0.05}
LADDER_WEIGHTS = {"l1": 4.0, "mean": 2.0, "vgg": 1.0, "half": 0.5, "lite": 0.3, "grid": 0.0, "spectrum": 0.0}


def say(*words) -> None:
    print(f"[{time.time() - BEGAN:6.1f}]", *words, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", required=True, help="folders of AVIF or WebP files")
    add("--nets", required=True, help="from `nets.pack`")
    add("--init", required=True, help="the model to go on from")
    add("--critic", help="its critic; without one it learns from nothing while the model waits")
    add("--out", default="out")
    add("--device", default="cuda")
    add("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    add("--compile", default="", help="backend of torch.compile: inductor, aot_eager; default: no compilation")
    add("--deadline", type=float, default=60.0, help="seconds from the start to the end")
    add("--closing", type=float, default=20.0, help="seconds of them to store the model and draw the sheet")
    add("--ladder_share", type=float, default=0.45, help="of the time, for the layers above the base")
    add("--batch", type=int, default=96)
    add("--ladder_batch", type=int, default=96)
    add("--crop", type=int, default=256)
    add("--window", type=int, default=192, help="side of the square in which LPIPS and the critic look")
    add("--adam", type=float, default=3e-4)
    add("--muon", type=float, default=8e-4)
    add("--ladder_adam", type=float, default=1e-3)
    add("--ladder_muon", type=float, default=5e-3)
    add("--critic_lr", type=float, default=3e-4)
    add("--share", type=float, default=0.25, help="the critic's gradient beside that of the other losses")
    add("--ladder_share_critic", type=float, default=0.12)
    add("--ema", type=float, default=0.997)
    add("--workers", type=int, default=13)
    add("--save_every", type=float, default=150.0)
    add("--profile", action="store_true", help="40 steps a phase, with the slowest kernels of six, then stop")
    add("--max_steps", type=int, default=10**9, help="of each phase, if they are done before its time is over")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def to_device(cascade: Cascade, device: torch.device, dtype: torch.dtype) -> Cascade:
    cascade.to(device)
    for network in (cascade.encoder, cascade.stage_b, cascade.stage_a, cascade.enhancement):
        network.to(dtype)
    for module in cascade.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.float()
    cascade.encoder.to(memory_format=torch.channels_last)
    return cascade


class Phase:
    """One phase by the clock: `step` is repeated until `seconds` are over, the rate falls by a cosine."""

    def __init__(self, name, step, learner, objective, args, seconds, share, log, save):
        self.name, self.step, self.learner, self.objective, self.args = name, step, learner, objective, args
        self.seconds, self.share, self.log, self.save = seconds, share, log, save

    def run(self, batches, device: torch.device, wait: int = 0) -> None:
        """wait: steps in which only the critic learns."""
        args, began, saved, steps, crops, done, sums, said, waited = (
            self.args,
            time.time(),
            time.time(),
            0,
            0,
            0.0,
            {},
            0.0,
            0.0,
        )
        profiler = None
        while done < 1:
            if args.profile and steps == 34:
                profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]).__enter__()
                profiled = time.time()
            asked = time.time()
            found = next(batches)
            waited += time.time() - asked
            images = found.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
            cosine = 0.5 * (1 + math.cos(math.pi * done))
            terms = self.step(images, share=self.share)
            curve = min(1.0, max(0, steps - wait) / 100) * (0.02 + 0.98 * cosine)
            terms["norm"] = self.learner.step(curve)
            if self.share:
                terms["critic"] = self.objective.teach(cosine, args.critic_lr)
            for name, value in terms.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = total + value.detach(), count + 1
            steps, crops, done = steps + 1, crops + len(images), (time.time() - began) / self.seconds
            done = done if steps < args.max_steps else 1.0
            if profiler is not None and steps == 40:
                torch.cuda.synchronize()
                profiler.__exit__(None, None, None)
                say("six steps in", round(time.time() - profiled, 3), "s")
                print(
                    profiler.key_averages().table(
                        sort_by="self_device_time_total", row_limit=32, max_name_column_width=90
                    )
                )
                done = 1.0
            if time.time() - said > 15 or done >= 1:
                row = {"phase": self.name, "step": steps, "crops": crops, "done": round(done, 3)}
                if said:
                    count = max(count for _, count in sums.values())
                    row["ms"], row["wait_ms"] = (round(1000 * s / count, 1) for s in (time.time() - said, waited))
                row |= {name: round(float(total) / count, 4) for name, (total, count) in sums.items()}
                print(json.dumps(row), file=self.log, flush=True)
                say(json.dumps(row))
                sums, said, waited = {}, time.time(), 0.0
            if time.time() - saved > args.save_every and done < 0.9:
                self.save()
                saved = time.time()


def main() -> None:
    args = parse()
    os.makedirs(args.out, exist_ok=True)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    cuda = device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pictures, weights = load_pictures(args.data)
    say(len(pictures), "pictures,", sum(p.nbytes for p in pictures) >> 20, "MiB decoded")
    feed = lambda batch, seed: loader(pictures, weights, args.crop, batch, seed, args.workers, cuda)
    batches = feed(args.batch, args.seed)
    best = load_cascade(Path(args.init)).eval().requires_grad_(False)  # float32 home of the averaged weights
    best.config = replace(best.config, understands=(), same_as="")
    cascade = to_device(copy.deepcopy(best), device, dtype)
    features, critic = Features(args.nets, device, dtype), Critic().to(device)
    if args.critic:
        critic.load_state_dict(load_file(args.critic))
    if args.compile:
        from fast import compile_blocks

        compile_blocks(args.compile)
    torch.manual_seed(args.seed + 7919)
    log = open(f"{args.out}/log.jsonl", "a")
    learning = [n for n, _ in cascade.named_parameters() if not is_norm(cascade, n)]
    params = dict(cascade.named_parameters())
    rest = lambda: max(1.0, args.deadline - args.closing - (time.time() - BEGAN))

    def save(learner):
        save_file({k: v.cpu() for k, v in critic.state_dict().items()}, f"{args.out}/critic.safetensors")
        best.load_state_dict({**best.state_dict(), **learner.averages()})
        with tempfile.TemporaryDirectory() as scratch:
            save_model(best, Path(scratch, "job_model"), torch.bfloat16)
            os.system(f"tar -C {scratch} -cf - job_model | split -d -b 15M - {os.path.abspath(args.out)}/model.tar.")

    if args.ladder_share < 1:
        rates = {"encoder.": 0.5, "stage_b.": 1.0, "stage_a.up_blocks": 0.7, "stage_a.out_block": 0.7}
        chosen = {n: params[n] for start in rates for n in learning if n.startswith(start)}
        learner = Learner(chosen, rates, EDGES, args.adam, args.muon, args.ema)
        objective = Objective(features, critic, args.critic_lr, BASE_WEIGHTS, args.window)
        step = partial(base_step, cascade, objective=objective, rng=random.Random(args.seed), w_latent=0.1)
        seconds = rest() * (1 - args.ladder_share)
        say("base:", len(learner.master), "weights for", round(seconds), "s")
        Phase("base", step, learner, objective, args, seconds, args.share, log, partial(save, learner)).run(
            batches, device, wait=0 if args.critic else 80
        )
        learner.settle()
        save(learner)
        del learner
    if args.ladder_share > 0:
        torch.compiler.set_stance("force_eager")  # its shapes are many, and each would be compiled
        rates = {"enhancement.": 1.0}
        chosen = {n: params[n] for n in learning if n.startswith("enhancement.")}
        learner = Learner(chosen, rates, EDGES, args.ladder_adam, args.ladder_muon, args.ema)
        objective = Objective(features, critic, args.critic_lr, LADDER_WEIGHTS, args.window)
        step = partial(ladder_step, cascade, objective=objective)
        batches = batches if args.ladder_batch == args.batch else feed(args.ladder_batch, args.seed + 1)
        say("ladder:", len(learner.master), "weights for", round(rest()), "s")
        Phase(
            "ladder", step, learner, objective, args, rest(), args.ladder_share_critic, log, partial(save, learner)
        ).run(batches, device)
        learner.settle()
        save(learner)
    if cuda:
        say("peak memory GiB", round(torch.cuda.max_memory_allocated() / 2**30, 1))
    torch.compiler.set_stance("force_eager")
    large = [p for p in pictures if min(p.shape[:2]) >= SHEET_SIDE]
    if large:
        sheet(cascade, large, device, f"{args.out}/sheet.jpg")
    say("done")
    sys.stdout.flush()
    os._exit(0)  # workers need no goodbye


def is_norm(cascade: Cascade, name: str) -> bool:
    return isinstance(cascade.get_submodule(name.rpartition(".")[0]), torch.nn.BatchNorm2d)


@torch.no_grad()
def sheet(cascade: Cascade, pictures: list[np.ndarray], device: torch.device, path: str, count: int = 7) -> None:
    """Some of the training pictures: original, base at 20, 10 and 1 dB, and at 10 dB with 8 and with 16 rungs more."""
    from air import hear_layer

    torch.manual_seed(3)
    rows, network = [], cascade.enhancement
    for pixels in pictures[:: max(1, len(pictures) // count)][:count]:
        crop = pixels[:SHEET_SIDE, :SHEET_SIDE]
        image = torch.from_numpy(crop.copy()).to(device).permute(2, 0, 1)[None].float() / 255
        row = [image]
        for snr_db in (20.0, 1.0, 10.0):
            air = Air(torch.full((1, 1), snr_db, device=device), clean=True)
            row.append(base_picture(cascade, image, air, cut=0.0))
        layers = network.encode(image.to(network.dtype))
        for ends in ((8, 0), (8, 8)):
            known = [
                hear_layer(layer, air, torch.full((1, 1), n, device=device)).to(network.dtype)
                for layer, n in zip(layers, ends)
            ]
            row.append(network.decode(row[3].to(network.dtype), *known).float().clamp(0, 1))
        rows.append(torch.cat(row, 3))
    pixels = (torch.cat(rows, 2)[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(path, quality=85)


if __name__ == "__main__":
    main()
