"""What a street scene looks like after each system of the bench: one row an SNR, one column a system, on one JPEG.

python benchmarks/peer_strip.py FRAME.png --labels LABELS --segmenter FILE --out docs/peers.jpg
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from scripts import script, summary
from semcast.bench import harness, unit
from semcast.bench.experiments import PEERS_REPAIRED
from semcast.bench.pictures import Pictures, centre_crop, sides_of
from semcast.bench.systems import find_system
from semcast.demo import contact_sheet
from semcast.files import write_bytes


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("image", type=Path, help="a street scene; of a folder or tar file, the first")
    p.add_argument("--labels", type=Path, help="its classes, for GESCO")
    p.add_argument("--segmenter", type=Path, help="from benchmarks/train_segmenter.py, for GESCO")
    p.add_argument("--systems", nargs="+", default=["semcast", *PEERS_REPAIRED, "img2img-published"], metavar="NAME")
    p.add_argument("--snr", type=float, nargs="+", default=[10, 1])
    p.add_argument("--side", type=int, default=280, help="of a picture on the strip")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")
    args = p.parse_args()
    setting = unit.Setting(segmenter=args.segmenter)
    harness.check(args.systems, setting)
    pictures = Pictures([args.image], limit=1, labels=args.labels)
    pixels, truth = pictures.read(0), pictures.truth(0)
    square = lambda picture: centre_crop(picture, min(picture.shape[:2]), args.image.name)
    shown = lambda name, snr_db: square(received(name, pixels, truth, snr_db, setting))
    rows = [[square(pixels)] + [shown(name, snr_db) for name in args.systems] for snr_db in args.snr]
    file = io.BytesIO()
    sheet = contact_sheet(rows, ["sent", *args.systems], [f"{snr_db:g} dB" for snr_db in args.snr], args.side)
    Image.fromarray(sheet).save(file, "JPEG", quality=85)
    write_bytes(args.out, file.getvalue())
    print(args.out)


def received(
    name: str, pixels: np.ndarray, truth: np.ndarray | None, snr_db: float, setting: unit.Setting
) -> np.ndarray:
    """What a system shows of draw 0 of the bench: the picture, or its mean colour where it is lost."""
    system = find_system(name)
    uses = harness.count_uses(setting.uses, *sides_of(pixels))
    uses, told = unit.request(system, pixels, uses, truth, setting)
    sent, side = system.send(pixels, uses, snr_db, **told)
    arrived, _ = unit.propagate(system, sent, snr_db, harness.picture_sha256(pixels), 0, setting)
    image = None if arrived is None else system.receive(arrived, side)
    return unit.flat_picture(name, pixels, side) if image is None else image


if __name__ == "__main__":
    script(main)
