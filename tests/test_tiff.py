"""TIFF files of every kind, written by hand."""

import struct
import zlib

import numpy as np
import pytest
from png_files import png
from test_formats import COLOURS, H, W, read

from semcast.errors import InputError
from semcast.formats import tiff
from semcast.formats.metadata import PNG


def cut(plane, rows, tile):
    """Strips of so many rows, or tiles of width and height, which are filled up at the right and below."""
    if tile is None:
        return [plane[top : top + rows] for top in range(0, len(plane), rows)]
    wide, high = tile
    full = np.pad(plane, [(0, -plane.shape[0] % high), (0, -plane.shape[1] % wide), (0, 0)])
    places = [(top, left) for top in range(0, full.shape[0], high) for left in range(0, full.shape[1], wide)]
    return [full[top : top + high, left : left + wide] for top, left in places]


def make_tiff(
    values,
    order="<",
    photometric=1,
    kind=1,
    bits=None,
    planar=False,
    rows=20,
    predictor=1,
    deflate=False,
    extra=(),
    tile=None,
):
    """A TIFF written by hand from [H, W, S]."""
    values = np.asarray(values)
    height, width, samples = values.shape
    bits, packed = bits or values.dtype.itemsize * 8, []
    for plane in np.moveaxis(values, -1, 0)[..., None] if planar else [values]:
        for part in cut(plane, rows, tile):
            if predictor == 2:
                part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1).astype(values.dtype)
            if predictor == 3:
                bytes_of = part.astype(part.dtype.newbyteorder(">")).view(np.uint8)
                bytes_of = bytes_of.reshape(*part.shape[:1], -1, part.dtype.itemsize)
                mixed = np.moveaxis(bytes_of, 2, 1).reshape(len(part), -1, part.shape[2])
                data = np.concatenate([mixed[:, :1], np.diff(mixed, axis=1)], axis=1).astype(np.uint8).tobytes()
            elif bits % 8:
                shifts = np.arange(bits - 1, -1, -1)
                data = np.packbits(
                    (part.reshape(len(part), -1, 1) >> shifts & 1).reshape(len(part), -1), axis=1
                ).tobytes()
            else:
                data = part.astype(part.dtype.newbyteorder(order)).tobytes()
            packed.append(zlib.compress(data) if deflate else data)
    offsets = 8 + np.concatenate([[0], np.cumsum([len(p) for p in packed])])
    entries = {256: [width], 257: [height], 258: [bits] * samples, 259: [8 if deflate else 1], 262: [photometric]}
    where, sizes = offsets[:-1].tolist(), [len(p) for p in packed]
    entries |= (
        {322: [tile[0]], 323: [tile[1]], 324: where, 325: sizes} if tile else {273: where, 278: [rows], 279: sizes}
    )
    entries |= {277: [samples]}
    entries |= {284: [2 if planar else 1], 317: [predictor], 339: [kind] * samples} | (
        {338: list(extra)} if extra else {}
    )
    start = int(offsets[-1])
    directory, after = struct.pack(order + "H", len(entries)), start + 2 + 12 * len(entries) + 4
    tail = b""
    for tag, numbers in sorted(entries.items()):
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(data) > 4:
            data, tail = struct.pack(order + "I", after + len(tail)), tail + data
        directory += struct.pack(order + "HHI", tag, 4, len(numbers)) + data
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return head + b"".join(packed) + directory + bytes(4) + tail


UNIT = COLOURS / 255.0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor, deflate", [(1, False), (1, True), (2, True)])
@pytest.mark.parametrize("dtype, kind", [("u2", 1), ("u4", 1), ("i2", 2), ("i4", 2)])
def test_tiff_of_deep_samples(dtype, kind, order, planar, predictor, deflate):
    values = (UNIT * np.iinfo(dtype).max).round().astype(dtype)
    options = {"photometric": 2, "kind": kind, "planar": planar, "predictor": predictor, "deflate": deflate}
    assert np.abs(read(make_tiff(values, order, **options)) - COLOURS).max() <= 1
    assert np.abs(read(make_tiff(values[..., :1], order, **options | {"photometric": 1})) - COLOURS[..., :1]).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 3])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_tiff_of_floats(dtype, predictor, order):
    data = make_tiff(UNIT.astype(dtype), order, photometric=2, kind=3, predictor=predictor, deflate=predictor > 1)
    assert np.abs(read(data) - COLOURS).max() <= 1


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_bits_that_fill_no_bytes(bits, samples, order):
    values = (UNIT[..., :samples] * (2**bits - 1)).round().astype(int)
    data = make_tiff(values, order, photometric=2 if samples == 3 else 1, bits=bits)
    assert np.abs(read(data) - COLOURS[..., :samples]).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_whose_zero_is_white(order):
    values = (UNIT[..., :1] * 65535).round().astype("u2")
    assert np.abs(read(make_tiff(65535 - values, order, photometric=0)) - COLOURS[..., :1]).max() <= 1


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("samples, photometric", [(2, 1), (4, 2)])
def test_tiff_with_deep_transparency_is_on_white(samples, photometric, planar):
    alpha = np.tile(np.linspace(0, 1, W), (H, 1))[..., None]
    values = (np.concatenate([UNIT[..., : samples - 1], alpha], -1) * 65535).round().astype("u2")
    expected = COLOURS[..., : samples - 1] * alpha + 255 * (1 - alpha)
    found = read(make_tiff(values, photometric=photometric, planar=planar, extra=[2]))
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor, deflate", [(1, False), (2, True)])
def test_tiff_in_tiles(predictor, deflate, planar, order):
    values = (UNIT * 65535).round().astype("u2")  # 66 x 70 pixels are no whole number of tiles
    options = {"photometric": 2, "planar": planar, "predictor": predictor, "deflate": deflate, "tile": (32, 48)}
    data = make_tiff(values, order, **options)
    assert tiff.layout(tiff.tags(data)).tile == (32, 48)
    assert np.abs(read(data) - COLOURS).max() <= 1


@pytest.mark.parametrize(
    "change, told",
    [
        ({"photometric": 6}, "colours of kind 6"),
        ({"bits": 0}, "which is not read"),
    ],
)
def test_tiff_of_a_kind_that_is_not_read_is_named(change, told):
    shape = tiff.layout(tiff.tags(make_tiff((UNIT * 65535).astype("u2"), photometric=2)))._replace(**change)
    with pytest.raises(ValueError, match=told):
        tiff.read(b"", shape)


def test_hostile_tiff_is_refused_before_memory_is_taken():
    data = make_tiff((UNIT * 65535).astype("u2"), photometric=2)
    at = data.index(struct.pack("<HHI", 256, 4, 1)) + 8
    for width in (2**31, 200_000_000, 0):
        with pytest.raises(InputError, match="^x(: damaged| is .* pixels)"):
            read(data[:at] + struct.pack("<I", width) + data[at + 4 :])
    assert len(PNG) == 8 and png(1, 1).startswith(PNG)
