"""What pictures look like after the link: one row a picture, one column an SNR, on one JPEG.

python benchmarks/contact_sheet.py DATA --crop 512 --limit 6 --out docs/kodak.jpg
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from quality import centre_crop, named, run
from tqdm import tqdm

from semcast.data import Photos
from semcast.demo import contact_sheet
from semcast.images import to_pixels, to_tensor, write_bytes
from semcast.link import Link
from semcast.models import load_model


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--snr", type=float, nargs="+", default=[20, 10, 5, 1])
    p.add_argument("--crop", type=int, required=True, help="centre crop to a square of this side")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--side", type=int, default=320, help="of a picture on the sheet")
    p.add_argument("--model", default="small")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")
    args = p.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    link, photos, rows = Link(load_model(args.model)), Photos(args.data, "val"), []
    names = named(photos, args.limit)
    for index in tqdm(range(len(names)), unit="picture"):
        image = centre_crop(to_tensor(photos.read(index)), args.crop)
        rows.append([to_pixels(image)] + [to_pixels(link(image, snr_db, seed=0).image) for snr_db in args.snr])
    columns = ["sent"] + [f"{snr_db:g} dB" for snr_db in args.snr]
    file = io.BytesIO()
    Image.fromarray(contact_sheet(rows, columns, names, args.side)).save(file, "JPEG", quality=88)
    write_bytes(args.out, file.getvalue())
    print(args.out)


if __name__ == "__main__":
    run(main)
