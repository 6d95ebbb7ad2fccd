"""Reading and writing pictures. Any common file becomes 8-bit sRGB, [1, 3, H, W] in [0, 1]; writing is atomic."""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .errors import InputError
from .files import read_bytes, write_bytes

PHOTO = Path(__file__).parent / "assets" / "astronaut.jpg"  # shipped with the package
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".avif"}
# EPS is missing because it is a program, which would be run.
FORMATS = {"PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF", "AVIF", "JPEG2000"}
MAX_FILE_BYTES = 256 << 20
STDERR = threading.Lock()
MAX_PIXELS = 64 << 20  # larger pictures are refused before they are decoded


def read_image(path: str | Path) -> np.ndarray:
    """Read a file as float32 [1, 3, H, W] in [0, 1], multiples of 1/255.

    EXIF rotation is applied, grey, palette, CMYK and 16-bit pictures are converted, transparency is blended with white,
    and of several frames the first is taken.

    Raises:
        InputError: the file is missing, not a picture, damaged, or too large to decode safely.
    """
    path = Path(path)
    data = read_bytes(path, MAX_FILE_BYTES, "picture")
    return to_image(decode(io.BytesIO(data), str(path)))


def decode(file: io.BytesIO, name: str) -> np.ndarray:
    """Decode a picture to uint8 [H, W, 3]. Raises the same errors as `read_image`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise InputError(f"{name} is {width}x{height} pixels; more than {MAX_PIXELS} are not decoded")
                if image.format not in FORMATS:
                    raise InputError(f"{name} is {image.format}, which is not read; convert it to PNG")
                with silenced() if image.format == "TIFF" else contextlib.nullcontext():
                    image.load()
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
        except InputError:
            raise
        except Image.DecompressionBombError:
            raise InputError(f"{name} is far too large; more than {MAX_PIXELS} pixels are not decoded") from None
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, MemoryError ...
            unknown = type(error).__name__ == "UnidentifiedImageError"
            reason = "not a picture that can be read" if unknown else f"damaged ({error})"
            raise InputError(f"{name}: {reason}") from None


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence libtiff, which writes errors to file descriptor 2 itself although they are also raised."""
    with STDERR:  # all threads share the descriptor
        saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float grey, which Pillow would clip at 255
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixels are not finite")
        top = 65535 if image.mode.startswith("I") else max(values.max(), 1)
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


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


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 pixels [H, W, 3] as PNG, atomically."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=4)  # 1 % larger than at 6, in half the time
    write_bytes(path, file.getvalue())


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write [1, 3, H, W] in [0, 1] as 8-bit PNG, whatever the suffix, atomically."""
    write_png(Path(path), to_pixels(image))


def mean_colour(image: np.ndarray) -> np.ndarray:
    """The mean colour of [1, 3, H, W], rounded to 8 bits, as [1, 3, 1, 1]."""
    return round_8bit(image.mean(axis=(2, 3), keepdims=True))
