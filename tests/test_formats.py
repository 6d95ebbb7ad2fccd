"""Kinds of picture files: colours against LittleCMS and by hand, damage that costs no picture."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from icc_profiles import P3, RGB_PROFILES, cmyk_profile, grey_profile
from PIL import Image, ImageCms, features
from png_files import chunk
from tiny import photo

from semcast.errors import InputError
from semcast.formats import colour, decode

H, W = 66, 70
BGR = np.linspace(0, 255, H * W * 3).reshape(3, H, W)
COLOURS = np.stack([BGR[2].T.reshape(H, W), BGR[1], np.flip(BGR[0], 1)], -1).round().astype(np.uint8)
COLOURS[:20] = photo(H, W)[:20]


def read(data: bytes, name: str = "x") -> np.ndarray:
    """The pixels as whole numbers that can be subtracted."""
    return decode.decode(io.BytesIO(data), name).astype(int)


def saved(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks after its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def srgb_levels(linear) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


def by_littlecms(image: Image.Image, profile: bytes) -> np.ndarray:
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return np.asarray(ImageCms.profileToProfile(image, source, target, intent, "RGB", flags=flags)).astype(int)


# colours


@pytest.mark.parametrize("kind", RGB_PROFILES)
@pytest.mark.parametrize("form, options", [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {})])
def test_an_icc_profile_is_applied_as_littlecms_does(kind, form, options):
    data = saved(Image.fromarray(COLOURS), form, icc_profile=RGB_PROFILES[kind], **options)
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.abs(read(data) - by_littlecms(stored, RGB_PROFILES[kind])).max() <= 2
    assert np.abs(read(data) - np.asarray(stored, int)).max() > 15  # it was not ignored


def test_an_srgb_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read(saved(Image.fromarray(COLOURS), icc_profile=profile)), COLOURS)


def test_transparent_parts_are_white_also_with_a_profile():
    alpha = np.tile(np.linspace(0, 255, W).astype(np.uint8), (H, 1))
    image = Image.fromarray(np.dstack([COLOURS, alpha]))
    expected = by_littlecms(Image.fromarray(COLOURS), RGB_PROFILES["Display P3"])
    share = alpha[..., None] / 255
    found = read(saved(image, icc_profile=RGB_PROFILES["Display P3"]))
    assert np.abs(found - (expected * share + 255 * (1 - share))).max() <= 2


@pytest.mark.parametrize("gamma", [1.8, 2.6, 3.0])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_grey_profile_is_applied(gamma, form):
    ramp = np.tile(np.linspace(0, 255, W).astype(np.uint8), (H, 1))
    found = read(saved(Image.fromarray(ramp), form, icc_profile=grey_profile(colour.power(gamma))))
    assert np.abs(found - srgb_levels((ramp / 255) ** gamma)[..., None]).max() <= 2


def test_a_grey_picture_may_have_an_rgb_profile():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, W).astype(np.uint8), (H, 1)))
    expected = by_littlecms(ramp.convert("RGB"), RGB_PROFILES["gamma 1.8"])
    assert np.abs(read(saved(ramp, icc_profile=RGB_PROFILES["gamma 1.8"])) - expected).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_a_cmyk_profile_is_applied(form):
    inks = Image.merge("CMYK", [Image.fromarray(COLOURS[..., i % 3] // (1 + (i == 3))).copy() for i in range(4)])
    data = saved(inks, form, icc_profile=cmyk_profile(), **({"quality": 95} if form == "JPEG" else {}))
    stored = Image.open(io.BytesIO(data))
    assert np.abs(read(data) - by_littlecms(stored, cmyk_profile())).max() <= 2
    assert np.abs(read(data) - np.asarray(stored.convert("RGB"), int)).max() > 20


@pytest.mark.parametrize("profile", [b"garbage", RGB_PROFILES["Display P3"][:200], cmyk_profile(), bytes(2000)])
def test_a_profile_that_is_damaged_or_of_another_kind_is_left_out_and_said(profile, caplog):
    with caplog.at_level(logging.WARNING, "semcast"):
        assert np.array_equal(read(saved(Image.fromarray(COLOURS), icc_profile=profile)), COLOURS)
    assert "a colour profile is left out of account" in caplog.text


def test_lab_is_converted():
    lab = ImageCms.profileToProfile(
        Image.fromarray(COLOURS), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(read(saved(lab, "TIFF")) - COLOURS).mean() < 2  # Lab in 8 bits is coarse


def cicp(primaries: int, curve: int) -> bytes:
    return chunk(b"cICP", bytes([primaries, curve, 0, 1]))


PLAIN = saved(Image.fromarray(COLOURS))


def test_cicp_and_an_icc_profile_of_one_space_agree():
    p3 = saved(Image.fromarray(COLOURS), icc_profile=RGB_PROFILES["Display P3"])
    assert np.abs(read(with_chunks(PLAIN, cicp(12, 13))) - read(p3)).max() <= 2


@pytest.mark.parametrize("curve", [1, 2, 6, 13, 14, 15])
def test_srgb_and_televisions_curves_change_nothing(curve):
    assert np.array_equal(read(with_chunks(PLAIN, cicp(1, curve))), COLOURS)


def test_cicp_comes_before_a_profile_in_png():
    both = saved(Image.fromarray(COLOURS), icc_profile=RGB_PROFILES["gamma 1.8"])
    assert np.array_equal(read(with_chunks(both, cicp(1, 13))), COLOURS)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_cicp_of_avif_is_applied():
    flat = Image.new("RGB", (W, H), (200, 90, 60))
    data = saved(flat, "AVIF", quality=100)
    at = data.index(b"colrnclx") + 8
    told = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    expected = colour.from_cicp(Image.fromarray(read(data).astype(np.uint8)), (12, 13), "")
    assert np.abs(read(told) - np.asarray(expected, int)).max() <= 1
    assert np.abs(read(told) - read(data)).max() > 10


def pq_code(cd_m2: float) -> float:
    """SMPTE ST 2084, light to code."""
    y = (cd_m2 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def test_pq_is_right_below_a_screens_white_and_fits_above(caplog):
    cd_m2 = np.array([1, 10, 50, 100, 150, 203, 400, 1000, 4000, 10_000])
    levels = np.array([round(255 * pq_code(v)) for v in cd_m2], np.uint8)
    flat = np.repeat(np.tile(levels, (H, 1)), 7, axis=1)
    with caplog.at_level(logging.WARNING, "semcast"):
        found = read(with_chunks(saved(Image.fromarray(np.dstack([flat] * 3))), cicp(9, 16)), "night.png")[0, ::7, 0]
    assert "night.png is HDR (PQ); its highlights are compressed" in caplog.text
    coded = colour.pq_curve(levels / 255.0)
    below = coded < 0.8
    assert below.sum() == 5 and np.abs(found[below] - srgb_levels(coded)[below]).max() <= 2
    assert np.allclose(coded, cd_m2 / 203, rtol=0.08)  # eight bits of PQ are coarse
    assert (np.diff(found) >= 0).all() and found[-1] == 255 and found[5] < 250


def test_hlg_has_its_reference_white_near_a_screens():
    grey = np.tile(np.repeat(np.array([0, 64, 128, 191, 230, 255], np.uint8), 12)[:W], (H, 1))
    found = read(with_chunks(saved(Image.fromarray(np.dstack([grey] * 3))), cicp(9, 18)))[0, ::12, 0]
    assert (np.diff(found) >= 0).all() and found[0] == 0 and 235 <= found[3] <= 247 and found[-1] >= 254


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 1 / 3.0])
def test_png_gamma_is_applied(gamma):
    found = read(with_chunks(PLAIN, chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))))
    assert np.abs(found - srgb_levels((COLOURS / 255) ** (1 / gamma))).max() <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"gAMA", struct.pack(">I", 45455))],  # how sRGB was written before its own chunk
        [chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100_000))],  # which comes first
        [chunk(b"gAMA", struct.pack(">I", 0))],
        [chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))],
        [chunk(b"cHRM", bytes(32))],
        [chunk(b"cHRM", struct.pack(">8I", *[33333] * 8))],
    ],
)
def test_png_colours_that_are_srgb_or_nonsense_change_nothing(chunks):
    assert np.array_equal(read(with_chunks(PLAIN, *chunks)), COLOURS)


def test_png_primaries_are_applied():
    primaries = chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in P3)))
    assert np.abs(read(with_chunks(PLAIN, primaries)) - read(with_chunks(PLAIN, cicp(12, 13)))).max() <= 1


# HEIC


@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg"])  # a telephone's HEIC is often called .jpg
@pytest.mark.parametrize("turned", [1, 6])
def test_heic_is_read(name, turned, tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    exif, image = Image.Exif(), Image.fromarray(photo(H, W)).resize((128, 96))
    exif[0x0112] = turned
    heif = pillow_heif.from_pillow(image)
    file = io.BytesIO()
    heif.save(file, quality=95, chroma=444, exif=exif.tobytes())
    found = read(file.getvalue(), name)
    expected = np.asarray(image, int) if turned == 1 else np.rot90(np.asarray(image, int), -1)
    assert found.shape == expected.shape and np.abs(found - expected).mean() < 4


def test_heic_has_its_profile_applied():
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    image = Image.new("RGB", (128, 96), (60, 200, 90))
    image.info["icc_profile"] = RGB_PROFILES["Display P3"]
    pillow_heif.from_pillow(image).save(file, quality=100, chroma=444)
    expected = by_littlecms(image, RGB_PROFILES["Display P3"])
    assert np.abs(read(file.getvalue()) - expected).max() <= 6  # HEVC's rounding; without the profile 60


# metadata that is damaged, and what is not read


BAD = chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?"
DAMAGED = {
    "checksum of a comment": with_chunks(PLAIN, BAD),
    "a comment of 50 MB": with_chunks(PLAIN, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50 << 20)))),
    "EXIF of a PNG": with_chunks(PLAIN, chunk(b"eXIf", bytes(range(200)))),
    "checksum of a profile": with_chunks(PLAIN, chunk(b"iCCP", b"x\0\0" + zlib.compress(b"x"))[:-1] + b"?"),
    "a profile of 50 MB": with_chunks(PLAIN, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50 << 20)))),
    "a gamma of two bytes": with_chunks(PLAIN, chunk(b"gAMA", b"\0\1")),
    "unknown chunk": with_chunks(PLAIN, chunk(b"abCd", b"\0" * 10)),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_metadata_costs_no_picture(what):
    assert np.array_equal(read(DAMAGED[what]), COLOURS)


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe1\0\x10Exif\0\0II*\0\xff\xff\xff\xff",
        b"\xff\xe2\0\x0eMPF\0II*\0\xff\xff\xff\xff",
        b"\xff\xed\0\x06ABCD",
    ],
)
def test_damaged_segments_cost_no_jpeg(segment):
    data = saved(Image.fromarray(COLOURS), "JPEG", quality=95)
    assert np.array_equal(read(data[:2] + segment + data[2:]), read(data))


def test_damaged_pixels_are_refused():
    data = saved(Image.fromarray(photo(H, W)), "JPEG")
    for cut in (PLAIN[: len(PLAIN) // 2], data[: len(data) // 2]):
        with pytest.raises(InputError, match=r"^x: damaged \("):
            read(cut)


NAMED = {
    b"\xff\x0a" + bytes(200): "JPEG XL, which is not read; convert it to PNG",
    b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50): "JPEG XL",
    b"II*\0\x10\0\0\0CR\x02\0" + bytes(50): "a camera's raw file",
    b"FUJIFILMCCD-RAW 0201": "a camera's raw file",
    b"\0\0\0\x18ftypcrx \0\0": "a camera's raw file",
    b"\0\0\0\x18ftypisom\0\0": "a video; take one picture out of it",
    b"%PDF-1.7\n": "a document",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n": "PostScript, a program, which is not run",
    b'<?xml version="1.0"?>\n<svg xmlns="x">': "SVG, a drawing",
    b"<!DOCTYPE html><html>": "a web page, not a picture; the download went wrong",
    b"8BPS\0\1": "a Photoshop document",
    b"#?RADIANCE\n": "scene light without a display's limits",
    b"PK\3\4": "an archive; unpack it first",
    b"SEMC\4": "a semcast frame, not a picture",
    b"": "empty",
}


@pytest.mark.parametrize("data", NAMED)
def test_what_is_not_read_is_named_with_what_to_do(data):
    with pytest.raises(InputError) as found:
        read(data, "thing")
    assert str(found.value).startswith(f"thing is {NAMED[data]}")


def test_a_raw_file_is_not_taken_for_its_thumbnail():
    thumbnail = saved(Image.fromarray(photo(H, W)), "TIFF", tiffinfo={50706: bytes([1, 4, 0, 0])})
    for name in ("x.tif", "x.nef"):
        with pytest.raises(InputError, match=f"^{name} is a camera's raw file; develop it first"):
            read(thumbnail, name)


@pytest.mark.parametrize("form, ratio", [("JPEG", 2), ("JPEG", 8), ("PNG", 4), ("TIFF", 2)])
def test_what_is_too_large_for_a_link_is_read_smaller(form, ratio, monkeypatch, caplog):
    image = Image.fromarray(photo(512, 640))
    exif = Image.Exif()
    exif[0x0112] = 6 if form != "TIFF" else 1  # Pillow turns a TIFF itself, before its size is known
    options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    data = saved(image, form, exif=exif, **options)
    monkeypatch.setattr(decode, "SIDE_MAX", 640 // ratio)
    with caplog.at_level(logging.WARNING, "semcast"):
        found = read(data)
    small = np.rot90(np.asarray(image.reduce(ratio), int), -1 if form != "TIFF" else 0)
    assert found.shape == small.shape and np.abs(found - small).mean() < 6
    assert f"x is 640x512 pixels; read at {640 // ratio}x{512 // ratio}" in caplog.text
