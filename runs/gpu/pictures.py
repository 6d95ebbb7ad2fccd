"""Training pictures: a folder of AVIF or WebP files, decoded once, cropped by worker processes."""

import glob
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

SHARES = {"people": 0.32, "drawn": 0.08}  # of the crops, by how a file's name starts; the rest share the rest


def load_pictures(folders: list[str]) -> tuple[list[np.ndarray], list[float]]:
    """Every picture [H, W, 3] of the folders, and how often each is to be drawn."""
    files = sorted(f for folder in folders for kind in ("avif", "webp") for f in glob.glob(f"{folder}/*.{kind}"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = list(pool.map(lambda path: np.asarray(Image.open(path).convert("RGB")), files))
    kinds = [next((k for k in SHARES if os.path.basename(f).startswith(k)), "") for f in files]
    shares = {**SHARES, "": 1 - sum(share for kind, share in SHARES.items() if kind in kinds)}
    return pictures, [shares[kind] / kinds.count(kind) for kind in kinds]


class Crops(torch.utils.data.IterableDataset):
    """Batches [B, size, size, 3] of bytes: squares of random place and size, shrunk, half of them mirrored."""

    def __init__(self, pictures: list[np.ndarray], weights: list[float], size: int, batch: int, seed: int):
        self.pictures, self.size, self.batch, self.seed = pictures, size, batch, seed
        self.cumulative = np.cumsum(weights)

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = random.Random(self.seed * 1000 + (info.id if info else 0))
        torch.set_num_threads(1)
        while True:
            yield torch.from_numpy(np.stack([self.crop(rng) for _ in range(self.batch)]))

    def crop(self, rng: random.Random) -> np.ndarray:
        i = int(np.searchsorted(self.cumulative, rng.random() * self.cumulative[-1]))
        pixels = self.pictures[min(i, len(self.pictures) - 1)]
        height, width = pixels.shape[:2]
        smallest = min(0.85 * self.size, height, width)
        side = smallest * (min(height, width) / smallest) ** rng.random()
        left, top = rng.random() * (width - side), rng.random() * (height - side)
        box = (left, top, left + side, top + side)
        crop = Image.fromarray(pixels).resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(crop)[:, :: rng.choice((1, -1))]


def loader(pictures, weights, size: int, batch: int, seed: int, workers: int, pin: bool):
    """An endless iterator over `Crops` from several processes."""
    ahead = 4 if workers else None
    data = Crops(pictures, weights, size, batch, seed)
    return iter(
        torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=ahead, pin_memory=pin)
    )
