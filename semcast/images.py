"""Pictures as arrays and as files: float32 [1, 3, H, W] in [0, 1] inside semcast, 8-bit sRGB in files."""

import io
import os
from collections.abc import Collection
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from .errors import InputError
from .files import check_suffix, read_bytes, write_bytes
from .formats.decode import SUFFIXES as SUFFIXES
from .formats.decode import decode as decode
from .formats.decode import on_white, turn

if TYPE_CHECKING:
    from torch import Tensor

PHOTO = Path(__file__).parent / "assets" / "astronaut.jpg"  # shipped with the package
MAX_FILE_BYTES = 512 << 20
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {  # suffix: Pillow's name of the format, and its settings
    ".png": ("PNG", {"compress_level": 4}),  # 1 % larger than at 6, in half the time
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
    ".avif": ("AVIF", {"quality": 90, "subsampling": "4:4:4"}),
}
SLACK = 1e-3  # how far floats may lie outside 0 .. 1, from rounding
# What stands for one picture in Python: a file, a PIL image, [H, W, 3], [3, H, W], [1, 3, H, W] or grey [H, W],
# with uint8 from 0 to 255 or floats from 0 to 1, in numpy or torch.
Picture: TypeAlias = "str | Path | Image.Image | np.ndarray | Tensor"


def read_image(path: str | Path) -> np.ndarray:
    """Read a file as float32 [1, 3, H, W] in [0, 1], multiples of 1/255, as `formats.decode` makes them; "-" is stdin.

    Raises:
        InputError: the file is missing, not a picture, damaged, or too large to decode safely.
    """
    path = Path(path)
    data = read_bytes(path, MAX_FILE_BYTES, "picture")
    return to_image(decode(io.BytesIO(data), str(path)))


def as_image(picture: Picture) -> np.ndarray:
    """What stands for one picture (see `Picture`) -> float32 [1, 3, H, W] in [0, 1].

    Raises:
        InputError: it could mean several things, or nothing; the message names its shape and range.
    """
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        return to_image(np.asarray(on_white(turn(picture), "the picture", None)))
    if not isinstance(picture, np.ndarray) and hasattr(picture, "detach"):  # a torch tensor
        tensor = picture.detach().cpu()
        picture = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(picture, np.ndarray):
        raise InputError(f"a {type(picture).__name__} is not a picture; give a path, a PIL image, an array or a tensor")
    return as_floats(as_planes(picture))


def as_planes(array: np.ndarray) -> np.ndarray:
    """Any layout of one picture -> [1, 3, H, W], its numbers unchanged."""
    planes = array[0] if array.ndim == 4 and len(array) == 1 else array
    if planes.ndim == 2:
        planes = planes[None]
    first, last = (planes.ndim == 3 and planes.shape[axis] in (1, 3) for axis in (0, -1))
    if first == last:
        hint = "; send its pictures one by one" if array.ndim == 4 else ""
        raise InputError(
            f"an array of shape {list(array.shape)} is not one picture: [H, W, 3], [3, H, W], [1, 3, H, W], [H, W]{hint}"
        )
    planes = np.moveaxis(planes, -1, 0) if last else planes
    return (planes if len(planes) == 3 else np.repeat(planes, 3, axis=0))[None]


def as_floats(array: np.ndarray) -> np.ndarray:
    """uint8, or floats in [0, 1] -> float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return array.astype(np.float32, order="C") / np.float32(255)
    if array.dtype.kind != "f":
        raise InputError(
            f"a picture of {array.dtype} is not understood; give uint8 from 0 to 255, or floats from 0 to 1"
        )
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"a picture of shape {list(array.shape)} holds NaN or infinite values")
    if low < -SLACK or high > 1 + SLACK:
        hint = "; divide it by 255" if high <= 255 and low >= 0 else ""
        raise InputError(
            f"a picture of floats must lie between 0 and 1, and this one goes from {low:g} to {high:g}{hint}"
        )
    array = np.ascontiguousarray(array, dtype=np.float32)
    return array if 0 <= low and high <= 1 else array.clip(0, 1)


def to_image(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    return np.moveaxis(pixels, -1, 0)[None].astype(np.float32, order="C") / np.float32(255)


def to_pixels(image: np.ndarray) -> np.ndarray:
    """[1, 3, H, W] in [0, 1] -> uint8 [H, W, 3], rounded."""
    pixels = np.empty((*image.shape[-2:], 3), np.uint8)
    for top in range(0, len(pixels), 256):  # in parts, for large pictures
        pixels[top : top + 256] = np.moveaxis(levels(image[0, :, top : top + 256]), 0, -1)
    return pixels


def levels(image: np.ndarray) -> np.ndarray:
    """[0, 1] -> whole numbers from 0 to 255, as float32."""
    return np.rint(np.clip(image, 0, 1) * np.float32(255))


def round_8bit(image: np.ndarray) -> np.ndarray:
    """The image as it would be after writing it to a file and reading it again."""
    return levels(image) / np.float32(255)


def encode(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """uint8 [H, W, 3] -> a file in the format of the suffix; all but PNG are lossy, of high quality."""
    file = io.BytesIO()
    name, settings = ENCODERS[suffix.lower()]
    Image.fromarray(pixels).save(file, name, **settings)
    return file.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 pixels [H, W, 3] as PNG, atomically."""
    write_bytes(path, encode(pixels))


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write [1, 3, H, W] in [0, 1] in the format of the suffix (PNG, JPEG, WebP, AVIF), atomically; "-" is stdout, PNG.

    Raises:
        InputError: the suffix is another, or the file cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    write_bytes(path, encode(to_pixels(image), path.suffix or ".png"))


def mean_colour(image: np.ndarray) -> np.ndarray:
    """The mean colour of [1, 3, H, W], rounded to 8 bits, as [1, 3, 1, 1]."""
    return round_8bit(image.mean(axis=(2, 3), keepdims=True))


def find_pictures(source: Path, also: Collection[str] = ()) -> list[Path]:
    """The pictures in a folder and its subfolders, sorted by path.

    Linked folders are followed; each folder is visited once, so that a link to a folder above ends nothing. What macOS
    leaves beside pictures is passed over.

    Args:
        also: further suffixes to find, in small letters: ".tar".
    """
    wanted, visited, found = {*SUFFIXES, *also}, set(), []
    for folder, folders, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if name != MACOS_FOLDER)
        paths = [Path(folder, name) for name in names]
        found += [path for path in paths if path.suffix.lower() in wanted and not is_leftover(path.name)]
    return sorted(found)


MACOS_FOLDER = "__MACOSX"


def is_leftover(name: str) -> bool:
    """Whether a file, or a member of an archive, is what macOS keeps beside a picture, under the picture's name."""
    path = PurePath(name)
    return path.name.startswith("._") or MACOS_FOLDER in path.parts
