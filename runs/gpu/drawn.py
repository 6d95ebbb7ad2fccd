"""Draw pictures that are no photos: pages of text, screens, charts, shapes and maps. The seed gives the same pictures.

python runs/gpu/drawn.py OUT 100
"""

import random
import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = sorted(Path(matplotlib.get_data_path(), "fonts/ttf").glob("DejaVu*.ttf"))
WORDS = (
    "the of and a to in is you that it he was for on are as with his they at be this have from or had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out "
    "many then them these so some her would make like him into time has look two more write go see number no way "
    "could people my than first water been call who oil its now find long down day did get come made may part "
    "Harbour WARNING Exit Platform 7 SNR 10 dB 3.5 kHz 2026 14:05 N 54.32 E 10.13"
).split()
Draw = ImageDraw.ImageDraw


def colour(r: random.Random, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    return r.randint(low, high), r.randint(low, high), r.randint(low, high)


def font(r: random.Random, low: int, high: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(r.choice(FONTS)), r.randint(low, high))


def gradient(r: random.Random, w: int, h: int) -> Image.Image:
    y, x = np.mgrid[0 : 1 : h * 1j, 0 : 1 : w * 1j]
    angle = r.uniform(0, 2 * np.pi)
    ramp = np.hypot(x - r.random(), y - r.random()) if r.random() < 0.3 else np.cos(angle) * x + np.sin(angle) * y
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-9)
    start, end = np.array(colour(r)), np.array(colour(r))
    return Image.fromarray((start + (end - start) * ramp[..., None]).astype(np.uint8))


def write(r: random.Random, d: Draw, box: tuple[int, int, int, int], low: int, high: int, ink) -> None:
    """Fill a box with lines of words in one font of `low` to `high` pixels."""
    left, y, right, bottom = box
    face = font(r, low, high)
    while y < bottom - face.size:
        line, width = "", (right - left) * r.uniform(0.5, 1)
        while d.textlength(line, font=face) < width and len(line) < 200:
            line += r.choice(WORDS) + " "
        while line and d.textlength(line, font=face) > right - left:
            line = line[:-1]
        d.text((left, y), line, font=face, fill=ink)
        y += int(face.size * r.uniform(1.1, 1.6))


def page(r: random.Random, image: Image.Image, d: Draw, ink) -> None:
    low, high = r.choice([(10, 16), (16, 30), (34, 80)])
    write(r, d, (r.randint(5, 40), r.randint(5, 40), image.width - r.randint(5, 60), image.height - 10), low, high, ink)


def screen(r: random.Random, image: Image.Image, d: Draw, ink) -> None:
    for _ in range(r.randint(2, 7)):
        x, y = r.randint(-40, image.width - 60), r.randint(-40, image.height - 60)
        right, bottom = x + r.randint(80, 400), y + r.randint(50, 300)
        d.rounded_rectangle((x, y, right, bottom), r.randint(0, 24), colour(r), colour(r), r.randint(0, 5))
        write(r, d, (x + 8, y + 8, right - 8, bottom - 4), 10, 34, colour(r))


def chart(r: random.Random, image: Image.Image, d: Draw, ink) -> None:
    w, h = image.size
    d.line((50, h - 40, w - 20, h - 40), fill=ink, width=2)
    d.line((50, 20, 50, h - 40), fill=ink, width=2)
    if r.random() < 0.5:
        for _ in range(r.randint(1, 4)):
            heights = np.clip(h / 2 + np.cumsum([r.gauss(0, 9) for _ in range(50, w - 20, 6)]), 20, h - 40)
            d.line(list(zip(range(50, w - 20, 6), heights.tolist())), fill=colour(r), width=r.randint(1, 5))
    else:
        bars = r.randint(4, 14)
        step = (w - 90) / bars
        for i in range(bars):
            d.rectangle((60 + i * step, r.randint(20, h - 60), 60 + (i + 0.7) * step, h - 40), fill=colour(r))
    write(r, d, (60, 4, w - 20, 40), 12, 26, ink)
    write(r, d, (60, h - 36, w - 20, h), 10, 18, ink)


def shapes(r: random.Random, image: Image.Image, d: Draw, ink) -> None:
    for _ in range(r.randint(0, 8)):
        x, y, s = r.randint(0, image.width), r.randint(0, image.height), r.randint(20, 260)
        kind = r.randrange(3)
        if kind == 0:
            d.ellipse((x - s, y - s, x + s, y + s * r.uniform(0.3, 1)), fill=colour(r))
        elif kind == 1:
            d.rectangle((x, y, x + s, y + s), fill=colour(r))
        else:
            corners = [(r.randint(0, image.width), r.randint(0, image.height)) for _ in range(r.randint(3, 5))]
            d.polygon(corners, fill=colour(r))


def country(r: random.Random, image: Image.Image, d: Draw, ink) -> None:
    w, h = image.size
    for _ in range(r.randint(6, 25)):
        points = [(r.randint(-50, w + 50), r.randint(-50, h + 50)) for _ in range(r.randint(3, 6))]
        if r.random() < 0.7:
            d.line(points, fill=colour(r), width=r.randint(1, 14), joint="curve")
        else:
            d.polygon(points, fill=colour(r, 120))
    for _ in range(r.randint(3, 14)):
        d.text((r.randint(0, w - 80), r.randint(0, h - 20)), r.choice(WORDS), font=font(r, 10, 26), fill=ink)


def main(out: Path, count: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    r = random.Random(5)
    kinds = [page, screen, chart, shapes, country]
    for n in range(count):
        kind = kinds[n % len(kinds)]
        w, h = r.choice([(640, 448), (512, 512), (448, 640), (704, 480)])
        dark = r.random() < 0.3
        paper = Image.new("RGB", (w, h), colour(r, 0, 70) if dark else colour(r, 200))
        image = gradient(r, w, h) if kind in (screen, shapes) else paper
        kind(r, image, ImageDraw.Draw(image), colour(r, 200) if dark else colour(r, 0, 90))
        image.save(out / f"drawn_{n:03}.avif", quality=62, speed=7)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
