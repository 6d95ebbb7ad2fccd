"""The demo: a bundled photo over four SNRs, beside the plainest rival of equal channel uses, on one sheet."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .baselines import downscale_and_send
from .images import read_image, to_pixels, write_png
from .link import Link, stream
from .metrics import measure
from .models import load_model
from .transmitter import SIDE_BITS

PHOTO = Path(__file__).parent / "assets" / "astronaut.jpg"
SNRS_DB = (20, 10, 5, 1)
SEED = 0


def run(path: Path) -> list[dict]:
    """Write the contact sheet to `path`; returns one row an SNR."""
    link, image = Link(load_model("small")), read_image(PHOTO)
    rows, ours, rival = [], [to_pixels(image)], [None]
    for snr_db in SNRS_DB:
        result = link(image, snr_db, SEED)
        uses = result.x.shape[1]
        ours.append(to_pixels(result.image))
        rival.append(to_pixels(downscale_and_send(image, uses, snr_db, stream(SEED, "channel"))))
        rows.append({"snr_db": snr_db, "channel_uses": uses, "side_bits": SIDE_BITS, **measure(image, result.image, {})})
    columns = ["sent: the photo"] + [f"{snr_db} dB" for snr_db in SNRS_DB]
    lines = ["received by semcast", f"downscaled, sent as analog pixels: the same {uses} channel uses"]
    write_png(path, contact_sheet([ours, rival], columns, lines))
    return rows


def contact_sheet(rows: list[list[np.ndarray | None]], columns: list[str], lines: list[str], side: int = 320) -> np.ndarray:
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
