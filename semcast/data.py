"""Training pictures: folders and tar shards in, random square crops out. What a step sees is a function of (seed, step)."""

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import InputError
from .images import MAX_FILE_BYTES, SUFFIXES, decode

CACHE_BYTES = 4 << 30  # decoded pictures kept in memory


class Photos:
    """All pictures in folders (searched deeply), tar files or single files, in a fixed order.

    >>> photos = Photos(["photos/", "shard-00.tar"])
    >>> batch = photos.crops(size=256, count=8, generator=torch.Generator().manual_seed(0))   # [8, 3, 256, 256]
    """

    def __init__(self, sources: list[Path]):
        self.items: list[tuple[str, Path, int, int]] = []  # name, file, offset and length of the encoded picture
        for source in map(Path, sources):
            if source.is_dir():
                found = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
                self.items += [(p.name, p, 0, p.stat().st_size) for p in found]
            elif source.suffix == ".tar":
                self.items += _tar_members(source)
            elif source.is_file():
                self.items.append((source.name, source, 0, source.stat().st_size))
            else:
                raise InputError(f"no pictures at {source}: it is neither a folder nor a tar file nor a picture")
        if not self.items:
            raise InputError(f"no pictures in {', '.join(map(str, sources))} ({', '.join(sorted(SUFFIXES))})")
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        if index in self._cache:
            return self._cache[index]
        name, path, offset, length = self.items[index]
        if length > MAX_FILE_BYTES:
            raise InputError(f"{name} in {path} has {length} bytes; the limit is {MAX_FILE_BYTES}")
        with open(path, "rb") as file:
            file.seek(offset)
            pixels = decode(io.BytesIO(file.read(length)), f"{path}:{name}")
        if self._cached_bytes + pixels.nbytes <= CACHE_BYTES:
            self._cache[index] = pixels
            self._cached_bytes += pixels.nbytes
        return pixels

    def crops(self, size: int, count: int, generator: torch.Generator) -> Tensor:
        """Random pictures, each shrunk or enlarged at random, cropped to a square and flipped: [count, 3, size, size].

        The crop's side in the picture is log-uniform from 0.7 `size` to the picture's short side.
        """
        picks = torch.randint(len(self), (count,), generator=generator).tolist()
        draws = torch.rand(count, 4, generator=generator).tolist()
        out = np.empty((count, size, size, 3), np.uint8)
        for i, (index, (u, v, w, flip)) in enumerate(zip(picks, draws)):
            pixels = self.read(index)
            height, width = pixels.shape[:2]
            short = min(height, width)
            smallest = min(0.7 * size, short)
            side = smallest * (short / smallest) ** u
            left, top = v * (width - side), w * (height - side)
            box = (left, top, left + side, top + side)
            crop = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))
            out[i] = crop[:, ::-1] if flip < 0.5 else crop
        return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255


class Prefetcher:
    """Makes the batches of the next steps in threads. `make(step)` must depend on `step` alone."""

    def __init__(self, make):
        workers = max(1, (os.cpu_count() or 2) // 2)
        self.make, self.ahead = make, 2 * workers + 1
        self.pool, self.pending = ThreadPoolExecutor(workers), {}

    def __call__(self, step: int):
        for s in range(step, step + self.ahead + 1):
            if s not in self.pending:
                self.pending[s] = self.pool.submit(self.make, s)
        return self.pending.pop(step).result()

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def step_generator(seed: int, step: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(((seed * 1_000_003 + step) << 8) + purpose)


def _tar_members(path: Path) -> list[tuple[str, Path, int, int]]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"cannot read {path}: {error} (compressed tar files: unpack them first)") from None
    return [(m.name, path, m.offset_data, m.size) for m in members]
