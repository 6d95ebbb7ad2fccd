"""What pictures look like after the link: one row a picture, one column an SNR, on one JPEG.

python benchmarks/contact_sheet.py DATA --crop 512 --limit 6 --out docs/kodak.jpg
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from scripts import read_pictures, script, summary
from semcast.cascade.engine import load_model
from semcast.demo import contact_sheet
from semcast.files import write_bytes
from semcast.images import to_pixels
from semcast.link import Link


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--snr", type=float, nargs="+", default=[20, 10, 5, 1])
    p.add_argument("--crop", type=int, required=True, help="centre crop to a square of this side")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--side", type=int, default=320, help="of a picture on the sheet")
    p.add_argument("--model", default="small")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")
    args = p.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    link, rows = Link(load_model(args.model)), []
    names, pictures = read_pictures(args.data, args.crop, args.limit)
    for read in tqdm(pictures, unit="picture"):
        image = read()
        rows.append([to_pixels(image)] + [to_pixels(link(image, snr_db, seed=0).image) for snr_db in args.snr])
    columns = ["sent"] + [f"{snr_db:g} dB" for snr_db in args.snr]
    file = io.BytesIO()
    Image.fromarray(contact_sheet(rows, columns, names, args.side)).save(file, "JPEG", quality=88)
    write_bytes(args.out, file.getvalue())
    print(args.out)


if __name__ == "__main__":
    script(main)
