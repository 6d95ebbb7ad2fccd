"""Trains the segmenter (`semcast/metrics/segmenter.py`) on labelled street scenes; some minutes on two CPU cores.

    python benchmarks/train_segmenter.py streets.tar --labels labels.tar --test test.tar --out segmenter.safetensors

Cross-entropy by class weights 1 / sqrt(share), AdamW, half a cosine; random scales, crops, flips and brightness.
Pictures without a label are left out, and so is what is in --test. The last line of stdout is one JSON object with the
mIoU on --test.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from tqdm import tqdm

from scripts import summary
from semcast.cascade.device import has_bf16
from semcast.errors import InputError
from semcast.metrics.segmenter import CLASSES, VOID, Labels, Segmenter, mean_iou, overlaps, save_segmenter, segment
from semcast.training.data import Photos, Prefetcher, step_generator

BATCH, CROP = 8, (256, 320)  # rows, columns
LR = {"trunk": 4e-4, "pyramid": 2e-3}


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("data", nargs="+", type=Path, help="folders, tar files or pictures")
    p.add_argument("--labels", type=Path, required=True, help="folder or tar file of PNG")
    p.add_argument("--test", nargs="+", type=Path, default=[], help="pictures to measure on")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    p.add_argument("--steps", type=int, default=900)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args(argv)
    try:
        labels, photos = Labels(args.labels), Photos(args.data)
        test = Photos(args.test) if args.test else None
        held_out = {labels.find(name) for name, *_ in test.items} if test else set()
        chosen = [i for i, (name, *_) in enumerate(photos.items) if labels.find(name) not in {None} | held_out]
        if not chosen:
            raise InputError(f"no picture in {', '.join(map(str, args.data))} has a label in {args.labels}")
        pairs = [labelled(photos, labels, i) for i in tqdm(chosen, desc="reading", disable=None)]
        network = train(pairs, args.steps, args.seed)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        save_segmenter(network, args.out)
        tested = (labelled(test, labels, i) for i in range(len(test))) if test else ()
        counts = [overlaps(segment(network, x), y) for x, y in tested]
    except (InputError, OSError) as error:
        print(f"train_segmenter: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"out": str(args.out), "pictures": len(pairs), "steps": args.steps} | figures(np.array(counts))))
    return 0


def figures(counts: np.ndarray) -> dict:
    if not len(counts):
        return {}
    both, either = counts.sum(axis=0).T
    return {
        "miou": round(mean_iou(counts), 4),
        "iou": {name: round(b / max(1, e), 3) for name, b, e in zip(CLASSES, both, either)},
    }


def labelled(photos: Photos, labels: Labels, index: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = photos.read(index)
    return pixels, labels.read(photos.items[index][0], pixels.shape[:2])


def train(pairs: list[tuple[np.ndarray, np.ndarray]], steps: int, seed: int) -> Segmenter:
    """Pictures uint8 [H, W, 3] and their labels [H, W] -> the network, in evaluation mode."""
    torch.manual_seed(seed)
    network = (
        Segmenter().requires_grad_(True).eval().to(memory_format=torch.channels_last)
    )  # eval: batch statistics stay ImageNet's
    trunk = [p for name, p in network.named_parameters() if name.startswith(("stem", "blocks"))]
    pyramid = [p for name, p in network.named_parameters() if not name.startswith(("stem", "blocks"))]
    groups = [{"params": trunk, "peak": LR["trunk"]}, {"params": pyramid, "peak": LR["pyramid"]}]
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-3)
    shares = np.bincount(np.concatenate([y.ravel() for _, y in pairs]), minlength=VOID + 1)[:VOID]
    weight = torch.from_numpy((shares.mean() / shares.clip(1)) ** 0.5).float()
    batches = Prefetcher(lambda step: make_batch(pairs, step_generator(seed, step, 0)))
    try:
        with tqdm(range(steps), desc="segmenter", disable=None) as bar:
            for step in bar:
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * min(1, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))
                image, truth = batches(step)
                with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16("cpu")):
                    logits = network(image.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits.float(), truth, weight, ignore_index=VOID)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    finally:
        batches.close()
    return network.requires_grad_(False)


def make_batch(pairs: list, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pictures at random scales (a window of 0.5 to 1 of the picture's sides): [B, 3, *CROP], [B, *CROP]."""
    images, truths, (rows, columns) = [], [], CROP
    for index, u, v, w, flip, light in generator.random((BATCH, 6)).tolist():
        pixels, label = pairs[int(index * len(pairs))]
        height, width = label.shape
        share = 0.5 + 0.5 * u
        tall, wide = share * height, min(share * height * columns / rows, width)
        left, top = v * (width - wide), w * (height - tall)
        box = (left, top, left + wide, top + tall)
        cut = lambda x, how: np.asarray(Image.fromarray(x).resize((columns, rows), how, box=box))  # noqa: B023
        x, y = cut(pixels, Image.Resampling.BILINEAR), cut(label, Image.Resampling.NEAREST)
        if flip < 0.5:
            x, y = x[:, ::-1], y[:, ::-1]
        images.append((x * (0.7 + 0.6 * light)).clip(0, 255) / 255)
        truths.append(y)
    to = lambda arrays: torch.from_numpy(np.stack(arrays))
    return to(images).movedim(-1, 1).float(), to(truths).long()


if __name__ == "__main__":
    sys.exit(main())
