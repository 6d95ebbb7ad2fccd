"""Training pictures: random square crops from folders and tar shards. A step's crops depend only on (seed, step).

A picture that cannot be read is named once and its place taken by the next one of its source that can. This does not
depend on when the damage is found, so that neither threads nor an interruption change a run.
"""

import bisect
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, chain
from logging import getLogger
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..files import check_file
from ..formats.kinds import HEAD_BYTES, is_like_picture, say_once
from ..images import MAX_FILE_BYTES, SUFFIXES, decode, find_pictures, is_leftover
from ..randomness import seeded
from .processes import writes

CACHE_BYTES = 4 << 30  # decoded pictures kept in memory
LAYOUTS = {  # picture folders of Cityscapes and DIV2K, which also hold other files
    "train": ("leftImg8bit/train", "DIV2K_train_HR"),
    "val": ("leftImg8bit/val", "DIV2K_valid_HR"),
}
Batch = TypeVar("Batch")


class Photos:
    """All pictures in folders (with subfolders and the tar files in them), tar files or single files, in a fixed order.

    All pictures are equally likely, unless every source has a weight: "street/:0.7", "photos/:0.3".

    >>> photos = Photos(["photos/", "shard-00.tar"])
    >>> batch = photos.crops(size=256, count=8, generator=seeded(0))   # [8, 3, 256, 256]
    """

    def __init__(self, sources: list[str | Path], split: str = "train", strict: bool = False):
        """split: "train" or "val", for the data sets in LAYOUTS; strict: a picture that cannot be read is an error."""
        self.items: list[tuple[str, Path, int, int]] = []  # name, file, offset and length of the encoded picture
        weighted = [_split_weight(str(source)) for source in sources]
        if len({weight is None for _, weight in weighted}) > 1:
            raise InputError("give every source of pictures a weight (PATH:WEIGHT), or none")
        weights, counts = [], []
        for source, weight in weighted:
            found = _find(source, split)
            if not found:
                raise InputError(f"no pictures in {source} ({', '.join(sorted(SUFFIXES))})")
            self.items += found
            counts.append(len(found))
            weights += [1.0 if weight is None else weight / len(found)] * len(found)
        self.weights = np.array(weights) / sum(weights)
        self.strict = strict
        self.unreadable: set[int] = set()  # those found so far
        self._ends = list(accumulate(counts))  # for each source, the index after its last picture
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> dict[str, int | str]:
        """What tells other data from these, wherever they lie: the number of pictures, and hashes of what they are."""
        names, _, _, sizes = zip(*self.items)
        return {
            "pictures": len(self),
            "names": _hash(names),
            "sizes": _hash(sizes),
            "weights": _hash(self.weights.tolist()),
        }

    def read(self, index: int) -> np.ndarray:
        """A picture, uint8 [H, W, 3]. Raises InputError if it cannot be read."""
        if index in self._cache:
            return self._cache[index]
        pixels = decode(io.BytesIO(self._encoded(index)), self._title(index))
        with self._lock:
            if index not in self._cache and self._cached_bytes + pixels.nbytes <= CACHE_BYTES:
                self._cache[index] = pixels
                self._cached_bytes += pixels.nbytes
        return pixels

    def readable(self, index: int) -> bool:
        """Whether a picture can be read; if it cannot, it is named and skipped from now on."""
        try:
            self.read(index)
        except InputError as error:
            self._skip(index, error)
            return False
        return True

    def shown(self, index: int) -> int:
        """The index itself or, if that picture is known to be unreadable, of the one in its place.

        Raises:
            InputError: none is left.
        """
        if index not in self.unreadable:
            return index
        source = bisect.bisect_right(self._ends, index)
        start, end = self._ends[source - 1] if source else 0, self._ends[source]
        for other in chain(range(index + 1, end), range(start, index), range(end, len(self)), range(start)):
            if other not in self.unreadable:
                return other
        raise InputError(f"none of the {len(self)} pictures can be read")

    def check_heads(self) -> None:
        """Look at the sizes and first bytes of all files, and decode those that do not begin like a picture.

        Raises:
            InputError: no picture can be read, or one cannot and `strict` is set.
        """
        for index, (*_, length) in enumerate(self.items):
            if not (0 < length <= MAX_FILE_BYTES and is_like_picture(self._head(index))):
                self.readable(index)
        self._say_how_many()

    def decode_all(self, stop: threading.Event) -> None:
        """Decode all pictures, to find those that are damaged. Raises the same errors as `check_heads`."""
        for index in range(len(self)):
            if stop.is_set():
                return
            if index not in self._cache and index not in self.unreadable:
                self.readable(index)
        self._say_how_many()

    def _say_how_many(self) -> None:
        self.shown(0)  # raises if none is left
        left = len(self) - len(self.unreadable)
        if left < len(self) / 2 and writes():
            say_once(f"only {left} of {len(self)} pictures can be read")

    def _skip(self, index: int, error: InputError) -> None:
        if self.strict:
            raise error
        with self._lock:
            known = index in self.unreadable
            self.unreadable.add(index)
        if not known and writes():
            getLogger("semcast").warning("%s; skipped", " ".join(str(error).split()))

    def _title(self, index: int) -> str:
        name, path, _, _ = self.items[index]
        return f"{path}:{name}" if path.suffix.lower() == ".tar" else str(path)

    def _encoded(self, index: int) -> bytes:
        _, path, offset, length = self.items[index]
        if length > MAX_FILE_BYTES:
            raise InputError(f"{self._title(index)} has {length} bytes; the limit for a picture is {MAX_FILE_BYTES}")
        check_file(path, "picture")
        return _part(path, offset, length)

    def _head(self, index: int) -> bytes:
        _, path, offset, _ = self.items[index]
        try:
            return _part(path, offset, HEAD_BYTES)
        except InputError:  # `read` will say so
            return b""

    def picks(self, count: int, generator: Generator) -> list[int]:
        """Indices of the pictures in a batch; `crops` with an equal generator uses the same ones."""
        return generator.choice(len(self.weights), count, p=self.weights).tolist()

    def crops(self, size: int, count: int, generator: Generator, rows: slice = slice(None)) -> Tensor:
        """Random pictures, each randomly scaled, cropped to a square and flipped: [count, 3, size, size] in [0, 1].

        rows: make only these rows of the batch.
        """
        picks = self.picks(count, generator)
        draws = generator.random((count, 4))
        crops = [self.crop(size, index, *draw) for index, draw in zip(picks[rows], draws[rows].tolist())]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255

    def crop(self, size: int, index: int, u: float, v: float, w: float, flip: float) -> np.ndarray:
        """Cut a square out of a picture and resize it to uint8 [size, size, 3].

        u, v, w and flip in [0, 1) set its side, its position and whether it is mirrored. For a uniform u the side is
        log-uniform between 0.7 `size` and the short side of the picture.
        """
        pixels = self._read_or_next(index)
        height, width = pixels.shape[:2]
        short = min(height, width)
        smallest = min(0.7 * size, short)
        side = smallest * (short / smallest) ** u
        left, top = v * (width - side), w * (height - side)
        box = (left, top, left + side, top + side)
        crop = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))
        return crop[:, ::-1] if flip < 0.5 else crop

    def _read_or_next(self, index: int) -> np.ndarray:
        while True:
            place = self.shown(index)
            try:
                return self.read(place)
            except InputError as error:
                self._skip(place, error)


@contextmanager
def decoding(photos: Photos) -> Iterator[Callable[[bool], None]]:
    """A context in which all pictures are decoded in the background.

    Yields a function that raises what was found (see `Photos.check_heads`). If its argument is true, it waits first.
    """

    def look(wait: bool) -> None:
        if wait or found.done():
            found.result()

    stop, pool = threading.Event(), ThreadPoolExecutor(1)
    found = pool.submit(photos.decode_all, stop)
    try:
        yield look
    finally:
        stop.set()
        pool.shutdown()


class Prefetcher(Generic[Batch]):
    """Makes the batches of the next steps in threads. `make(step)` must depend on `step` only."""

    def __init__(self, make: Callable[[int], Batch]):
        workers = min(max(1, (os.cpu_count() or 2) // 2), 8)
        self.make, self.ahead = make, 2 * workers + 1
        self.pool = ThreadPoolExecutor(workers)
        self.pending: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        for s in range(step, step + self.ahead + 1):
            if s not in self.pending:
                self.pending[s] = self.pool.submit(self.make, s)
        return self.pending.pop(step).result()

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def step_generator(seed: int, step: int, purpose: int) -> Generator:
    """The generator for one purpose in one step of a run; train.py lists the purposes."""
    return seeded("train", seed, step, purpose)


def _split_weight(source: str) -> tuple[Path, float | None]:
    """ "PATH:WEIGHT" -> path, weight. A path that exists as it stands has no weight."""
    path, colon, weight = source.rpartition(":")
    if not colon or Path(source).exists():
        return Path(source), None
    try:
        value = float(weight)
    except ValueError:
        return Path(source), None
    if not 0 < value < float("inf"):
        raise InputError(f"{source}: the weight of a source must be a number above 0")
    return Path(path), value


def _find(source: Path, split: str) -> list[tuple[str, Path, int, int]]:
    if source.is_dir():
        roots = _layout(source, split) or [source]
        if roots == [source] and any(_layout(source, other) for other in LAYOUTS):
            raise InputError(
                f"no pictures for {split} in {source}, which has others; name the folder of those you want"
            )
        found = [path for root in roots for path in find_pictures(root, also=(".tar",))]
        return [item for path in sorted(found) for item in _members(path)]
    if source.is_file() or source.suffix.lower() == ".tar":
        return _members(source)
    raise InputError(f"no pictures at {source}: it is neither a folder nor a tar file nor a picture")


def _layout(source: Path, split: str) -> list[Path]:
    """The picture folders of a data set in LAYOUTS, if `source` is its root or a folder directly below."""
    source = source.resolve()  # so that "." has a parent
    places = [parent / layout for layout in LAYOUTS[split] for parent in (source, source.parent)]
    return [place for place in places if place.is_dir() and source in place.parents]


def _members(path: Path) -> list[tuple[str, Path, int, int]]:
    """The pictures in a tar file, or else the file itself. A file that is not there any more has no bytes."""
    if path.suffix.lower() != ".tar":
        return [(path.name, path, 0, path.stat().st_size if path.is_file() else 0)]
    try:
        with tarfile.open(path, "r:") as tar:
            members = [
                m for m in tar if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES and not is_leftover(m.name)
            ]
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"cannot read {path}: {error} (compressed tar files: unpack them first)") from None
    return [(m.name, path, m.offset_data, m.size) for m in members]


def _part(path: Path, offset: int, length: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _hash(values: Iterable) -> str:
    text = "\n".join(map(str, values))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
