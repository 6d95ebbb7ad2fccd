"""The pictures of a run, read when their turn comes."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..data import Photos
from ..errors import InputError
from .segmenter import Labels

PHOTO = Path(__file__).parents[1] / "assets" / "astronaut.jpg"
CROPS = ((40, 150), (230, 250))  # of the bundled photo: left and top of the smoke run's pictures


class Pictures:
    """Pictures of a run by index, cropped: `names`, `read`; and the classes of their pixels, if there are labels: `truth`."""

    def __init__(self, sources: list[Path], size: int | None = None, limit: int | None = None, labels: Path | None = None):
        self.photos, self.size, self.labels = Photos(sources, "val"), size, Labels(labels) if labels else None
        count = len(self.photos)
        self.chosen = range(count) if limit is None or limit >= count else [i * count // limit for i in range(limit)]
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


class SmokePictures:
    """Two crops of the bundled photo."""

    names = ["astronaut, face", "astronaut, shuttle"]
    size = 256

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        with Image.open(PHOTO) as photo:
            left, top = CROPS[index]
            return np.array(photo.convert("RGB").crop((left, top, left + self.size, top + self.size)))

    def truth(self, index: int) -> None:
        return None


def centre_crop(pixels: np.ndarray, side: int | None, name: str) -> np.ndarray:
    """uint8 [H, W, ...] -> [side, side, ...]."""
    if side is None:
        return pixels
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise InputError(f"{name} is {width}x{height} pixels; --size {side} cannot be cut out of it")
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
