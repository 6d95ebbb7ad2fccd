"""A picture file of any common kind -> 8-bit sRGB pixels: recognise, decode, turn, convert the colours, put on white."""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..header import SIDE_MAX, SIDE_MIN
from . import colour, tiff
from .kinds import DNG_VERSION, RAW, is_heif, named, say_once
from .metadata import PNG, Cicp, cicp, tidy

SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".jps", ".webp", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".avif", ".avifs"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".heic", ".heif", ".hif", ".heics", ".heifs"),
}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF", "AVIF", "JPEG2000")  # Pillow's names
MAX_PIXELS = 200 << 20  # more are refused before anything is decoded
KEPT_PIXELS = 64 << 20  # more are read at a half, a quarter or an eighth of the sides
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SHARED = threading.RLock()  # Pillow's limit and file descriptor 2 belong to all threads


def decode(file: io.BytesIO, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a picture to uint8 [H, W, 3], sRGB, as a viewer would show it, on white where it is transparent.

    Of several frames the first is taken. What is larger than a link can carry is read at a half, a quarter or an eighth
    of its sides. Damaged metadata is left out of account.

    Args:
        name: for messages.
        max_pixels: more are refused before anything is decoded.
    Raises:
        InputError: not a picture, of a kind that is not read, damaged, or too large to decode safely.
    """
    data = file.getvalue()
    if answer := named(data, name):
        raise InputError(f"{name} is {answer}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(read(data, name, max_pixels))
        except (InputError, MemoryError):
            raise
        except Image.DecompressionBombError:
            raise InputError(f"{name} is far too large; more than {max_pixels} pixels are not decoded") from None
        except UnidentifiedImageError:
            raise InputError(f"{name}: not a picture that can be read") from None
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ...
            raise InputError(f"{name}: damaged ({error})") from None


def read(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """The picture as an RGB image."""
    tidied, bare = tidy(data), tidy(data, bare=True)
    try:
        image = load(open_heif(data, name, max_pixels) if is_heif(data) else open_any(tidied, name, max_pixels), name)
    except (OSError, SyntaxError, ValueError):  # UnidentifiedImageError is an OSError
        if bare == tidied:
            raise
        image = load(open_any(bare, name, max_pixels), name)  # was it the metadata that is damaged?
    numbers = cicp(data) or image.info.get("cicp")
    if image.info.get("icc_profile") and not data.startswith(PNG):  # only in PNG numbers come before a profile
        numbers = None
    return on_white(turn(image), name, numbers)


def open_any(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Open a file without decoding its pixels, unless it is a TIFF with samples that Pillow does not know."""
    if directory := tiff.tags(data):
        if DNG_VERSION in directory:
            raise InputError(f"{name} is {RAW}")
        shape = tiff.layout(directory)
        check_size(shape.width, shape.height, name, max_pixels)
        if tiff.is_unusual(shape):
            with silenced():
                image = tiff.read(data, shape)
            image.info["icc_profile"] = directory.get(34675)
            image.getexif()[ORIENTATION] = directory.get(274, 1)
            return image
    image = open_within_limit(data)
    check_size(*image.size, name, max_pixels)
    return image


def open_within_limit(data: bytes) -> Image.Image:
    with SHARED:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS  # Pillow refuses above twice that
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def open_heif(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """HEIC, as telephones write it. libheif turns it itself."""
    import pillow_heif  # takes 50 ms

    heif = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    check_size(*heif.size, name, max_pixels)
    image = heif.to_pillow()
    if found := heif.info.get("nclx_profile"):
        image.info["cicp"] = found["color_primaries"], found["transfer_characteristics"]
    for told in ("exif", "xmp"):  # how to turn it
        image.info.pop(told, None)
    return image


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InputError(f"{name} is {width}x{height} pixels; more than {max_pixels} are not decoded, so shrink it")


def load(image: Image.Image, name: str) -> Image.Image:
    """Decode the pixels, of what is too large for a link at a half, a quarter or an eighth of its sides."""
    size = image.size
    ratio = next((n for n in (1, 2, 4, 8) if max(size) <= n * SIDE_MAX and size[0] * size[1] <= n**2 * KEPT_PIXELS), 1)
    if min(size) < ratio * SIDE_MIN:
        ratio = 1
    if ratio > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (size[0] // ratio, size[1] // ratio))
    with silenced() if image.format == "TIFF" else contextlib.nullcontext():
        image.load()
    if ratio > 1:
        if image.size == size:
            info, exif = image.info, orientation(image)
            image = image.reduce(ratio)
            image.info = info
            image.getexif()[ORIENTATION] = exif
        say_once("{} is {}x{} pixels; read at {}x{}".format(name, *size, *image.size))
    return image


def orientation(image: Image.Image) -> int:
    """How it is to be turned, 1 to 8, as cameras write it in EXIF; 1 where that is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # of many kinds
        return 1


def turn(image: Image.Image) -> Image.Image:
    how = TURNS.get(orientation(image))
    return image if how is None else image.transpose(how)


def on_white(image: Image.Image, name: str, numbers: Cicp | None) -> Image.Image:
    """Colours to sRGB, then transparent parts onto white."""
    image, alpha = separate(image)
    profile = image.info.get("icc_profile")
    if numbers:
        rgb = colour.from_cicp(image.convert("RGB"), numbers, name)
    elif image.mode == "LAB":
        rgb = colour.from_lab(image)
    elif profile:
        rgb = colour.from_icc(image, profile)
    elif "srgb" not in image.info and {"gamma", "chromaticity"} & set(image.info):
        rgb = colour.from_png(image.convert("RGB"), image.info)
    else:
        rgb = image.convert("RGB")
    return rgb if alpha is None else Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def separate(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours of mode L, RGB, CMYK or LAB, and how opaque they are, if some are not."""
    info, alpha = dict(image.info), None
    if image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        if isinstance(key := info.pop("transparency", None), int):
            alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        image = Image.fromarray((values * (255 / 65535)).round().astype(np.uint8))
    elif image.mode in ("I", "F"):  # PGM with more than 8 bits
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode == "I" else max(values.max(), 1)
        image = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in info:
        grey = image.mode in ("LA", "La", "L")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB").getchannel("R") if grey else image.convert("RGB")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    image.info = info
    return image, alpha


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence libtiff, which writes errors to file descriptor 2 itself although they are also raised."""
    with SHARED:
        saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)
