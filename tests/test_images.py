"""Reading every kind of picture file, against pixels worked out by hand; writing never leaves a partial file."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import Image, ImageFile, features

from semcast.errors import InputError
from semcast.files import write_bytes
from semcast.images import (
    FORMATS,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    SUFFIXES,
    decode,
    mean_colour,
    read_image,
    round_8bit,
    to_image,
    write_image,
)

H, W = 66, 70
RAMP = (np.arange(H)[:, None] * 3 + np.arange(W)).astype(np.uint8)  # [H, W], 0 .. 255, every row and column different


def saved(image: Image.Image, path: Path, **options) -> np.ndarray:
    """Pixels uint8 [H, W, 3] that `read_image` finds in `image` saved at `path`, after checking what it promises."""
    image.save(path, **options)
    array = read_image(path)
    assert array.dtype == np.float32 and array.shape[:2] == (1, 3)
    pixels = np.rint(array * 255)
    assert np.array_equal(pixels / np.float32(255), array) and pixels.min() >= 0 and pixels.max() <= 255
    return np.moveaxis(pixels[0], 0, -1).astype(np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def over_white(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """alpha v + (1 - alpha) 255, alpha in 0 .. 255."""
    return (values * (alpha / 255.0) + 255 - alpha).round()


def png(header: bytes, data: bytes) -> bytes:
    """A PNG written by hand; `header` is IHDR's 13 bytes."""
    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


LOSSLESS = [
    ("png", {}),
    ("bmp", {}),
    ("tif", {}),
    ("tiff", {"compression": "tiff_lzw"}),
    ("ppm", {}),
    ("webp", {"lossless": True}),
]


@pytest.mark.parametrize("suffix, options", LOSSLESS)
def test_lossless_colour_is_read_exactly(suffix, options, tmp_path):
    assert np.array_equal(saved(Image.fromarray(photo(H, W)), tmp_path / f"x.{suffix}", **options), photo(H, W))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_lossy_flat_colour_is_read_within_rounding_of_its_colour_space(suffix, tmp_path):
    if not features.check({"jpg": "jpg"}.get(suffix, suffix)):
        pytest.skip(f"this Pillow has no {suffix}")
    pixels = saved(Image.new("RGB", (W, H), (200, 90, 30)), tmp_path / f"x.{suffix}", quality=95)
    assert np.abs(pixels.astype(int) - (200, 90, 30)).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "gif", "pgm", "tif"])
def test_grey_becomes_three_equal_channels(suffix, tmp_path):
    assert np.array_equal(saved(Image.fromarray(RAMP), tmp_path / f"x.{suffix}"), grey(RAMP))


def test_one_bit_becomes_black_and_white(tmp_path):
    assert np.array_equal(saved(Image.fromarray(RAMP > 100), tmp_path / "x.png"), grey(np.where(RAMP > 100, 255, 0)))


def test_grey_with_alpha_is_put_on_white(tmp_path):
    alpha = np.flip(RAMP, 1).copy()
    image = Image.merge("LA", (Image.fromarray(RAMP), Image.fromarray(alpha)))
    assert np.abs(saved(image, tmp_path / "x.png") - over_white(grey(RAMP), grey(alpha))).max() <= 1


def test_colour_with_alpha_is_put_on_white(tmp_path):
    colour, alpha = photo(H, W), np.flip(RAMP, 1).copy()
    pixels = saved(Image.fromarray(np.dstack([colour, alpha])), tmp_path / "x.png")
    assert np.abs(pixels - over_white(colour, grey(alpha))).max() <= 1
    assert np.array_equal(pixels[alpha == 255], colour[alpha == 255]) and (pixels[alpha == 0] == 255).all()


@pytest.mark.parametrize("suffix", ["png", "gif"])
@pytest.mark.parametrize("transparent", [None, 2])
def test_palette_is_applied_and_its_transparent_entry_is_white(suffix, transparent, tmp_path):
    index = (RAMP % 4).astype(np.uint8)
    colours = np.array([[10, 20, 30], [250, 0, 5], [0, 128, 0], [77, 88, 99]], np.uint8)
    image = Image.fromarray(index).copy()
    image.putpalette(colours.tobytes())
    pixels = saved(image, tmp_path / f"x.{suffix}", **({} if transparent is None else {"transparency": transparent}))
    if transparent is not None:
        colours[transparent] = 255
    assert np.array_equal(pixels, colours[index])


@pytest.mark.parametrize("mode, key", [("L", 7), ("RGB", (7, 7, 7))])
def test_colour_key_transparency_is_white(mode, key, tmp_path):
    values = np.where(RAMP == 7, 255, RAMP)
    pixels = saved(Image.fromarray(RAMP).convert(mode), tmp_path / "x.png", transparency=key)
    assert np.array_equal(pixels, grey(values))


def test_sixteen_bit_grey_is_divided_by_257_not_clipped(tmp_path):
    values = np.linspace(0, 65535, H * W).round().reshape(H, W).astype(np.uint16)
    assert np.array_equal(saved(Image.fromarray(values), tmp_path / "x.png"), grey((values / 257).round()))


def test_cmyk_jpeg_has_the_inks_multiplied(tmp_path):
    c, m, y, k = 40, 120, 200, 60
    expected = [(255 - ink) * (255 - k) / 255 for ink in (c, m, y)]
    pixels = saved(Image.new("CMYK", (W, H), (c, m, y, k)), tmp_path / "x.jpg", quality=100)
    assert np.abs(pixels - np.array(expected)).max() <= 2  # JPEG rounds each ink


@pytest.mark.parametrize(
    "orientation, upright",
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: np.rot90(np.fliplr(a))),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(np.fliplr(a), -1)),
        (8, np.rot90),
        (9, lambda a: a),  # no such orientation
    ],
)
def test_exif_orientation_is_applied(orientation, upright, tmp_path):
    exif, image = Image.Exif(), Image.fromarray(photo(H, W))
    exif[0x0112] = orientation
    stored = saved(image, tmp_path / "plain.jpg")
    assert np.array_equal(saved(image, tmp_path / "turned.jpg", exif=exif), upright(stored))


@pytest.mark.parametrize("suffix, options", [("gif", {}), ("webp", {"lossless": True}), ("png", {}), ("tif", {})])
def test_first_of_several_frames_is_read(suffix, options, tmp_path):
    frames = [Image.new("RGB", (W, H), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    pixels = saved(frames[0], tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (pixels == (200, 0, 0)).all()


@pytest.mark.parametrize("top, scale", [(1.0, 255), (0.5, 255), (4.0, 255 / 4)])
def test_float_tiff_is_white_at_one_or_at_its_brightest(top, scale, tmp_path):
    values = np.linspace(-0.2, top, H * W, dtype=np.float32).reshape(H, W)
    pixels = saved(Image.fromarray(values), tmp_path / "x.tif")
    assert np.array_equal(pixels, grey((values.clip(0).astype(np.float64) * scale).round()))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_float_tiff_that_is_not_finite_is_refused(bad, tmp_path):
    Image.fromarray(np.full((H, W), bad, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=r"x\.tif: damaged \(pixels are not finite\)$"):
        read_image(tmp_path / "x.tif")


def test_every_suffix_looked_for_in_training_folders_is_a_format_that_is_read():
    Image.init()
    assert {Image.EXTENSION.get(suffix, "AVIF") for suffix in SUFFIXES} <= FORMATS


@pytest.mark.parametrize(
    "side, text", [(8193, "is 8193x8193 pixels"), (20_000, "is far too large"), (2**31 - 1, "is far too large")]
)
def test_too_many_pixels_are_refused_by_the_header_alone(side, text, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    data = png(struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), zlib.compress(bytes(1000)))
    with pytest.raises(InputError, match=rf"^x {text}; more than {MAX_PIXELS} "):
        decode(io.BytesIO(data), "x")


def test_too_many_bytes_are_refused_unread(tmp_path):
    with open(tmp_path / "x.png", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse
    told = f"has {MAX_FILE_BYTES + 1} bytes; the limit for a picture is {MAX_FILE_BYTES}$"
    with pytest.raises(InputError, match=told):
        read_image(tmp_path / "x.png")


def test_a_device_is_refused_unread():
    with pytest.raises(InputError, match="^/dev/null is not a file; name a picture$"):
        read_image("/dev/null")


def test_postscript_is_refused_before_it_is_run():
    with pytest.raises(InputError, match="^x is EPS, which is not read; convert it to PNG$"):
        decode(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n%%EOF\n"), "x")


def test_what_is_written_is_read_back_exactly(tmp_path):
    image = np.random.default_rng(0).random((1, 3, H, W), np.float32) * np.float32(1.2) - np.float32(0.1)
    write_image(tmp_path / "x.png", image)
    assert np.array_equal(read_image(tmp_path / "x.png"), round_8bit(image))
    every_level = to_image(grey(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    write_image(tmp_path / "y.png", every_level)
    assert np.array_equal(read_image(tmp_path / "y.png"), every_level)
    assert sorted(os.listdir(tmp_path)) == ["x.png", "y.png"]


def test_mean_colour_is_rounded_to_8_bits():
    image = to_image(photo(H, W))
    colour = mean_colour(image)
    assert colour.shape == (1, 3, 1, 1)
    assert np.allclose(colour[0, :, 0, 0] * 255, photo(H, W).mean(axis=(0, 1)).round(), atol=1e-4)


@pytest.mark.parametrize("before", [None, b"the old file"])
@pytest.mark.parametrize("step", ["replace", "chmod"])
def test_a_failed_write_leaves_what_was_there(step, before, tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    if before:
        path.write_bytes(before)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(InputError, match=r"^cannot write .*x\.png: No space left on device$"):
        write_image(path, np.zeros((1, 3, 64, 64)))
    assert os.listdir(tmp_path) == (["x.png"] if before else [])
    assert before is None or path.read_bytes() == before


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "x", b"data")
    assert os.listdir(tmp_path) == []


def test_writing_replaces_files_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, text in (
        ("pipe", "it is not a file"),
        ("folder", "it is a folder"),
        ("none/x", "No such file or directory"),
    ):
        with pytest.raises(InputError, match=f"^cannot write .*{name}: {text}$"):
            write_bytes(tmp_path / name, b"data")
    assert (tmp_path / "pipe").is_fifo() and sorted(os.listdir(tmp_path)) == ["folder", "pipe"]
