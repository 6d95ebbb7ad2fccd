"""Pictures of jobs: from the upload to the size that is sent, and from pixels to what the page shows."""

import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from ..errors import InputError
from ..formats.decode import decode
from ..header import SIDE_MIN, Header, bandwidth_ratio
from ..images import PHOTO, encode
from ..metrics.measure import measure
from ..modem.layout import duration_s
from ..modem.profiles import PROFILES
from .limits import Limits
from .report import Report, Task

PNG, SVG = "image/png", "image/svg+xml"


def picture_of(task: Task, limits: Limits, report: Report) -> np.ndarray:
    """The picture of a job at the size it asks for, uint8 [H, W, 3]. A large upload is replaced by a smaller one."""
    report.progress(0.0, "reading the picture")
    largest = max(limits.sides)
    if task.upload is None:
        pixels = sample()
    else:
        pixels = shrunk(decode(io.BytesIO(task.upload), "this file", limits.pixels), largest)
        kept = encode(pixels)
        if len(kept) < len(task.upload):
            report.keep(kept)
    return shrunk(pixels, task.settings["side"])


@functools.cache
def sample() -> np.ndarray:
    return decode(io.BytesIO(PHOTO.read_bytes()), "the sample")


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pixels whose longer side is `side` at most. Raises InputError if the shorter one is too short then."""
    height, width = pixels.shape[:2]
    scale = min(side / max(height, width), 1.0)
    size = round(width * scale), round(height * scale)
    if min(size) < SIDE_MIN:
        raise InputError(f"the picture would have {size[0]}x{size[1]} pixels; both sides need {SIDE_MIN} at least")
    return pixels if scale == 1 else np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def show(report: Report, name: str, pixels: np.ndarray, **about) -> None:
    """A picture as a result."""
    report.result(name, encode(pixels), PNG, about={"width": pixels.shape[1], "height": pixels.shape[0]} | about)


def steps_of(report: Report, steps: int, first: float = 0.1, last: float = 0.7) -> Callable[[int], None]:
    """A receiver's `progress`: which diffusion step is done."""

    def tick(done: int) -> None:
        report.progress(first + (last - first) * done / steps, f"diffusion step {done} of {steps} is done")

    return tick


def cost_of(header: Header, uses: int) -> dict[str, float]:
    """What a transmission takes, in figures."""
    return {
        "width": header.width,
        "height": header.height,
        "rungs": header.last_rung,
        "channel_uses": uses,
        "element_ratio": 2 * bandwidth_ratio(uses, header.height, header.width),
        "side_bits": header.side_bits,
        "seconds": duration_s(PROFILES["fast"], uses),
    }


def quality_of(sent: np.ndarray, received: np.ndarray) -> dict[str, float | None]:
    found = measure(sent, received, {})
    return {name: found[name] for name in ("psnr_db", "ms_ssim")}


def png(rgba: np.ndarray) -> bytes:
    """uint8 [H, W, 4] as PNG."""
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG", compress_level=4)
    return file.getvalue()
