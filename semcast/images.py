"""Pictures in and out: any common file becomes 8-bit sRGB [1, 3, H, W] in [0, 1]; results are written whole or not at all."""

import contextlib
import io
import os
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".avif"}
FORMATS = {"PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF", "AVIF", "JPEG2000"}  # not EPS: it is a program
MAX_FILE_BYTES = 256 << 20
STDERR = threading.Lock()
MAX_PIXELS = 64 << 20  # refused before anything is decoded


def read_image(path: str | Path) -> Tensor:
    """File -> [1, 3, H, W] in [0, 1], multiples of 1/255.

    EXIF rotation applied; grey, palette, CMYK and 16-bit converted; transparency put on white; first frame of several.
    Raises:
        InputError: missing, no picture, damaged, or too large to decode safely.
    """
    path = Path(path)
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not path.is_file():  # a device or a pipe may never end
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not a file'}; name a picture")
    if size_bytes > MAX_FILE_BYTES:
        raise InputError(f"{path} has {size_bytes} bytes; the limit for a picture is {MAX_FILE_BYTES}")
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return to_tensor(decode(file, str(path)))


def decode(file: io.BytesIO, name: str) -> np.ndarray:
    """Encoded picture -> uint8 [H, W, 3]. Errors as `read_image`."""
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
            reason = "not a picture that can be read" if type(error).__name__ == "UnidentifiedImageError" else f"damaged ({error})"
            raise InputError(f"{name}: {reason}") from None


@contextlib.contextmanager
def silenced():
    """libtiff writes its own lines to stderr, past Python; the error is raised as well, so one of them is enough."""
    with STDERR:  # threads share it
        saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float grey: Pillow would clip at 255
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixels are not finite")
        top = 65535 if image.mode.startswith("I") else max(values.max(), 1)
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255


def to_pixels(image: Tensor) -> np.ndarray:
    """[1, 3, H, W] in [0, 1] -> uint8 [H, W, 3], rounded."""
    return (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def round_8bit(image: Tensor) -> Tensor:
    """What the image is after being written and read again."""
    return (image.clamp(0, 1) * 255).round() / 255


def write_png(path: Path, pixels: np.ndarray) -> None:
    """uint8 [H, W, 3] -> PNG, atomically."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    write_bytes(path, file.getvalue())


def write_image(path: str | Path, image: Tensor) -> None:
    """[1, 3, H, W] in [0, 1] -> 8-bit PNG, whatever the suffix, atomically."""
    write_png(Path(path), to_pixels(image))


def write_bytes(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: a full disk or an interrupt leaves no half file.

    Raises:
        InputError: the folder is missing or not writable, `path` is no ordinary file, or the disk is full.
    """
    path, partial = Path(path), None
    try:
        if path.exists() and not path.is_file():  # a rename would replace even /dev/null
            raise InputError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'not a file'}")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            partial = file.name
            file.write(data)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if partial and os.path.exists(partial):
            os.unlink(partial)
