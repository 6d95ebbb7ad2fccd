"""The analog stream and mode mixed in equal channel uses: one row a mode and SNR, one column a number of uses, on one JPEG.

python benchmarks/mixed_strip.py --out docs/mixed.jpg
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from scripts import script, summary
from semcast.cascade.engine import load_model
from semcast.demo import contact_sheet
from semcast.files import write_bytes
from semcast.header import Header
from semcast.images import PHOTO, read_image, to_pixels
from semcast.link import Link
from semcast.modulation.ladder import rungs_within
from semcast.transmitter import packet_within, top_rung


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("image", type=Path, nargs="?", default=PHOTO)
    p.add_argument("--snr", type=float, nargs="+", default=[10, 1])
    p.add_argument("--uses", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    p.add_argument("--side", type=int, default=260, help="of a picture on the strip")
    p.add_argument("--model", default="small")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")
    args = p.parse_args()
    engine, image = load_model(args.model), read_image(args.image)
    _, _, height, width = image.shape
    base, top = Header(0, height, width, engine.config.factor, 1.0), top_rung(engine.config)
    part = {  # what a mode sends in so many uses
        "analog": lambda uses: {"rungs": rungs_within(uses, base, top=top)},
        "mixed": lambda uses: {"packet": packet_within(uses, base)},
    }
    lines = [(mode, snr_db) for snr_db in args.snr for mode in part]
    rows = [
        [image, *(Link(engine, mode=mode)(image, snr_db, seed=0, **part[mode](uses)).image for uses in args.uses)]
        for mode, snr_db in lines
    ]
    sheet = contact_sheet(
        [[to_pixels(picture) for picture in row] for row in rows],
        ["sent: the photo", *(f"{uses} uses" for uses in args.uses)],
        [f"{mode}, {snr_db:g} dB" for mode, snr_db in lines],
        args.side,
    )
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=85)
    write_bytes(args.out, file.getvalue())
    print(args.out)


if __name__ == "__main__":
    script(main)
