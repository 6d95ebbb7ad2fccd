"""What others would have shown in the same time on the air: JPEG 2000 behind an ideal code, slow-scan television."""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from ..bench.codecs import CODECS, SCALES, SIDE_MIN, coded_size, enlarge, shrink
from ..images import mean_colour, to_image, to_pixels
from ..modulation.capacity import capacity

TRIES = 6  # encodings at one scale
SSTV_SIZE, SSTV_LINE_S = (320, 240), 0.15  # of Robot 36: pixels, and seconds for a line
UNSENT = 128  # grey of lines that were not sent yet
JPEG = range(1, 96)  # qualities


class Shown(NamedTuple):
    """A rival's picture."""

    pixels: np.ndarray  # uint8 [H, W, 3]
    name: str
    size: int  # bytes, or lines


def codec_name() -> str:
    return "JPEG 2000" if features.check_codec("jpg_2000") else "JPEG"


def codec(pixels: np.ndarray, uses: int, snr_db: float) -> Shown:
    """The best picture that fits what an ideal code carries over white noise; the mean colour if nothing fits.

    Args:
        pixels: uint8 [H, W, 3].
        uses: channel uses.
    """
    budget, best = math.floor(uses * capacity(snr_db) / 8), None
    height, width = pixels.shape[:2]
    attempt = jpeg2000 if codec_name() == "JPEG 2000" else jpeg
    for index in range(len(SCALES)):
        size = coded_size("jpeg2000", index, height, width)
        if index and min(size) < SIDE_MIN:
            break
        if found := attempt(shrink(Image.fromarray(pixels), *size, index), budget):
            seen = enlarge(found[1], index, height, width)
            error = float(np.square(seen.astype(float) - pixels).mean())
            if best and error > best[0]:
                break  # smaller still is worse still
            best = error, Shown(seen, codec_name(), found[0])
    if best:
        return best[1]
    colour = mean_colour(to_image(pixels))
    return Shown(to_pixels(np.broadcast_to(colour, (1, 3, height, width))), codec_name(), 0)


def jpeg2000(picture: Image.Image, budget: int) -> tuple[int, np.ndarray] | None:
    """Size in bytes and pixels of the encoding that fills the budget; its headers are not counted."""
    encode, decode, steps, *_ = CODECS["jpeg2000"]
    step = min(round(math.log(max(budget, 8) / 8, 1.02)), steps - 1)  # about the size that it makes
    for _ in range(TRIES):
        payload = encode(picture, max(step, 0))
        if len(payload) <= budget:
            return len(payload), decode(payload, picture.height, picture.width)
        if step <= 0:
            return None
        step -= max(1, math.ceil(math.log(len(payload) / budget, 1.02)))
    return None


def jpeg(picture: Image.Image, budget: int) -> tuple[int, np.ndarray] | None:
    """As `jpeg2000`, where that is not there; all of the file is counted."""
    low, high, best = JPEG.start, JPEG.stop, None
    while low < high:
        quality, file = (low + high) // 2, io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= budget:
            low, best = quality + 1, file
        else:
            high = quality
    return best and (best.tell(), np.asarray(Image.open(best).convert("RGB")))


def television(pixels: np.ndarray, seconds: float) -> Shown:
    """What Robot 36 has shown by then, without any noise: the first of its 240 lines; the others are grey."""
    height, width = pixels.shape[:2]
    lines = min(int(seconds / SSTV_LINE_S), SSTV_SIZE[1])
    small = np.asarray(Image.fromarray(pixels).resize(SSTV_SIZE, Image.Resampling.LANCZOS)).copy()
    small[lines:] = UNSENT
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
    return Shown(np.asarray(large), "Robot 36", lines)
