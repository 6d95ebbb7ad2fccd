"""How a picture grows with its rungs: one row an SNR, one column a prefix of the stream, on one JPEG.

python benchmarks/ladder_strip.py --out docs/ladder.jpg
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from scripts import script, summary
from semcast.cascade.engine import load_model
from semcast.demo import contact_sheet
from semcast.files import write_bytes
from semcast.images import PHOTO, read_image, to_pixels
from semcast.link import Link


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("image", type=Path, nargs="?", default=PHOTO)
    p.add_argument("--snr", type=float, nargs="+", default=[10, 1])
    p.add_argument("--last", type=int, nargs="+", default=[4, 8, 12, 16, 20, 24], help="last rungs")
    p.add_argument("--side", type=int, default=280, help="of a picture on the strip")
    p.add_argument("--model", default="small")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")
    args = p.parse_args()
    link, image = Link(load_model(args.model)), read_image(args.image)
    grown = [[link(image, snr_db, seed=0, rungs=(1, last)) for last in args.last] for snr_db in args.snr]
    columns = ["sent: the photo"] + [f"{result.payload_uses} uses" for result in grown[0]]
    rows = [[to_pixels(image)] + [to_pixels(result.image) for result in row] for row in grown]
    file = io.BytesIO()
    sheet = contact_sheet(rows, columns, [f"{snr_db:g} dB" for snr_db in args.snr], args.side)
    Image.fromarray(sheet).save(file, "JPEG", quality=85)
    write_bytes(args.out, file.getvalue())
    print(args.out)


if __name__ == "__main__":
    script(main)
