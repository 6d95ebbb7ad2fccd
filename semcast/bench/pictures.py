"""The pictures of a run, each read when it is needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..images import PHOTO
from ..metrics.segmenter import Labels
from ..training.data import Photos

CROPS = ((40, 150), (230, 250))  # left and top of the smoke run's pictures in the bundled photo


class Pictures:
    """Pictures by index: `names`, `read` (cropped) and, if there are labels, `truth` (the classes of the pixels)."""

    def __init__(
        self,
        sources: Sequence[Path],
        size: int | None = None,
        limit: int | None = None,
        labels: Path | None = None,
        only: Sequence[str] = (),
    ):
        """Decode all pictures once; one that cannot be read is named and left out.

        Args:
            limit: use this many pictures, evenly spread over all.
            only: use the pictures of these names.
        """
        self.photos, self.size, self.labels = Photos(list(sources), "val"), size, Labels(labels) if labels else None
        found = [i for i, (name, *_) in enumerate(self.photos.items) if not only or name in only]
        count = len(found)
        wanted = found if limit is None or limit >= count else [found[i * count // limit] for i in range(limit)]
        self.chosen = [i for i in wanted if self.photos.readable(i)]
        if wanted and not self.chosen:
            raise InputError(f"none of the {len(wanted)} pictures can be read")
        self.names = [self.photos.items[i][0] for i in self.chosen]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        return np.ascontiguousarray(centre_crop(self.photos.read(self.chosen[index]), self.size, self.names[index]))

    def truth(self, index: int) -> np.ndarray | None:
        """uint8 [H, W]."""
        if self.labels is None:
            return None
        label = self.labels.read(self.names[index], self.photos.read(self.chosen[index]).shape[:2])
        return np.ascontiguousarray(centre_crop(label, self.size, self.names[index]))


class SmokePictures(Pictures):
    """Two crops of the bundled photo."""

    def __init__(self):
        self.names = ["astronaut, suit", "astronaut, shuttle"]
        self.size = 256

    def read(self, index: int) -> np.ndarray:
        with Image.open(PHOTO) as photo:
            left, top = CROPS[index]
            return np.array(photo.convert("RGB").crop((left, top, left + 256, top + 256)))

    def truth(self, index: int) -> None:
        return None


def sides_of(pixels: np.ndarray) -> tuple[int, int]:
    """Height and width of [H, W, ...]."""
    height, width = pixels.shape[:2]
    return height, width


def centre_crop(pixels: np.ndarray, side: int | None, name: str) -> np.ndarray:
    """uint8 [H, W, ...] -> [side, side, ...]; unchanged if `side` is None."""
    if side is None:
        return pixels
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise InputError(f"{name} is {width}x{height} pixels; --size {side} cannot be cut out of it")
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
