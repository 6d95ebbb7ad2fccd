"""The demo: a bundled photo over four SNRs, beside the plainest rival of equal channel uses, on one sheet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .bench.downscale import downscale_and_send
from .cascade.engine import load_model
from .header import SIDE_BITS
from .images import PHOTO, read_image, to_pixels, write_png
from .link import Link
from .metrics.measure import measure
from .randomness import stream

SNRS_DB = (20, 10, 5, 1)
SEED = 0


def run(path: Path) -> Iterator[dict]:
    """One row an SNR, as each picture arrives; then writes the contact sheet to `path`."""
    link, image = Link(load_model("small")), read_image(PHOTO)
    ours, uses = [to_pixels(image)], 0
    rival: list[np.ndarray | None] = [None]
    for snr_db in SNRS_DB:
        result = link(image, snr_db, SEED)
        uses = result.payload_uses
        ours.append(to_pixels(result.image))
        rival.append(to_pixels(downscale_and_send(image, uses, snr_db, stream(SEED, "channel"))))
        yield {"snr_db": snr_db, "channel_uses": uses, "side_bits": SIDE_BITS, **measure(image, result.image, {})}
    columns = ["sent: the photo"] + [f"{snr_db} dB" for snr_db in SNRS_DB]
    lines = ["received by semcast", f"downscaled, sent as analog pixels: the same {uses} channel uses"]
    write_png(path, contact_sheet([ours, rival], columns, lines))


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray | None]], columns: Sequence[str], lines: Sequence[str], side: int = 320
) -> np.ndarray:
    """Pictures in a grid with a caption over each column and under each row. uint8 [H, W, 3]."""
    gap, caption = 8, 34
    width = len(columns) * (side + gap) + gap
    height = caption + len(rows) * (side + caption) + gap
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    for j, text in enumerate(columns):
        draw.text((gap + j * (side + gap) + side / 2, caption / 2), text, fill="black", font=font, anchor="mm")
    for i, row in enumerate(rows):
        top = caption + i * (side + caption)
        for j, pixels in enumerate(row):
            if pixels is not None:
                picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(picture, (gap + j * (side + gap), top))
        draw.text((width - gap, top + side + caption / 2), lines[i], fill="black", font=font, anchor="rm")
    return np.asarray(sheet)
