"""Reading every kind of picture file, against pixels worked out by hand; writing never leaves a partial file."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageFilter, features
from png_files import png
from tiny import photo

from semcast.errors import InputError
from semcast.files import write_bytes
from semcast.formats.decode import FORMATS, MAX_PIXELS, SUFFIXES, decode
from semcast.images import (
    MAX_FILE_BYTES,
    as_image,
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
    others = {".avif": "AVIF", ".avifs": "AVIF", ".jif": "JPEG", ".jps": "JPEG", ".mpo": "JPEG"}
    heif = {".heic", ".heif", ".hif", ".heics", ".heifs"}
    assert {others.get(suffix) or Image.EXTENSION[suffix] for suffix in SUFFIXES - heif} <= set(FORMATS)


@pytest.mark.parametrize(
    "side, text",
    [
        (14_482, "is 14482x14482 pixels"),
        (20_000, "is 20000x20000 pixels|is far too large"),
        (2**31 - 1, "is far too large"),
    ],
)
def test_too_many_pixels_are_refused_by_the_header_alone(side, text, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    data = png(side, side, bytes(1000))
    with pytest.raises(InputError, match=rf"^x ({text}); more than {MAX_PIXELS} "):
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
@pytest.mark.parametrize("step", ["replace", "fsync"])
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


@pytest.mark.parametrize("suffix, form", [("jpg", "JPEG"), ("JPEG", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF")])
def test_the_suffix_says_what_is_written(suffix, form, tmp_path):
    image = to_image(np.asarray(Image.fromarray(photo(H, W)).resize((W, H)).filter(ImageFilter.GaussianBlur(4))))
    write_image(tmp_path / f"x.{suffix}", image)
    with Image.open(tmp_path / f"x.{suffix}") as found:
        assert found.format == form
    assert np.abs(read_image(tmp_path / f"x.{suffix}") - image).mean() < 2 / 255


@pytest.mark.parametrize("name", ["x", "x.gif", "x.sem", ".png"])
def test_another_suffix_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"pictures are written as \.avif, \.jpeg, \.jpg, \.png or \.webp$"):
        write_image(tmp_path / name, np.zeros((1, 3, 64, 64)))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("umask, mode", [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_file_has_the_rights_that_the_umask_leaves(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "x", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_an_existing_file_keeps_its_rights_and_a_link_its_target(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


def test_a_name_of_255_bytes_is_written(tmp_path):
    write_bytes(tmp_path / ("x" * 251 + ".png"), b"data")
    assert [len(name) for name in os.listdir(tmp_path)] == [255]


FLOATS = to_image(photo(H, W))[0]
ALIKE = {
    "path": lambda tmp: tmp / "photo.png",
    "text": lambda tmp: str(tmp / "photo.png"),
    "PIL": lambda tmp: Image.fromarray(photo(H, W)),
    "PIL with alpha": lambda tmp: Image.fromarray(photo(H, W)).convert("RGBA"),
    "uint8 [H, W, 3]": lambda tmp: photo(H, W),
    "uint8 [3, H, W]": lambda tmp: np.moveaxis(photo(H, W), -1, 0),
    "float64 [3, H, W]": lambda tmp: FLOATS.astype(np.float64),
    "float32 [H, W, 3]": lambda tmp: np.moveaxis(FLOATS, 0, -1),
    "float32 [1, 3, H, W]": lambda tmp: FLOATS[None],
    "tensor": lambda tmp: pytest.importorskip("torch").from_numpy(FLOATS),
    "tensor uint8 [1, 3, H, W]": lambda tmp: (
        pytest.importorskip("torch").from_numpy(photo(H, W)).permute(2, 0, 1)[None]
    ),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_what_has_one_meaning_is_one_picture(kind, tmp_path):
    Image.fromarray(photo(H, W)).save(tmp_path / "photo.png")
    image = as_image(ALIKE[kind](tmp_path))
    assert image.dtype == np.float32 and image.flags.c_contiguous
    assert np.array_equal(image, to_image(photo(H, W)))


def test_grey_has_three_equal_channels():
    for array in (RAMP, RAMP[None], RAMP[..., None], RAMP[None, None]):
        assert np.array_equal(as_image(array), to_image(grey(RAMP)))


@pytest.mark.parametrize(
    "picture, told",
    [
        (np.zeros((2, 3, H, W)), r"shape \[2, 3, 66, 70\] is not one picture.*send its pictures one by one"),
        (np.zeros((4, H, W)), r"shape \[4, 66, 70\] is not one picture"),
        (np.zeros((3, 80, 3)), r"shape \[3, 80, 3\] is not one picture"),
        (np.zeros((1, 1, 3, H, W)), r"shape \[1, 1, 3, 66, 70\]"),
        (np.full((3, H, W), np.nan), r"shape \[1, 3, 66, 70\] holds NaN"),
        (np.linspace(0, 255, 3 * H * W).reshape(3, H, W), "goes from 0 to 255; divide it by 255$"),
        (np.linspace(-1, 1, 3 * H * W).reshape(3, H, W), "goes from -1 to 1$"),
        (np.zeros((3, H, W), np.int64), "int64 is not understood; give uint8"),
        (np.zeros((3, H, W), bool), "bool is not understood"),
        ([[0.0]], "a list is not a picture"),
        (None, "a NoneType is not a picture"),
    ],
)
def test_what_has_no_one_meaning_is_refused(picture, told):
    with pytest.raises(InputError, match=told):
        as_image(picture)


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
