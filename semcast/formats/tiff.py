"""TIFF files whose samples are not 8-bit: 12, 16 or 32 bits, signed, float, with planes apart, negative.

libtiff (in Pillow) only unpacks: it is shown each plane as an 8-bit picture of its bytes, in which numpy then finds the
samples. Source: TIFF 6.0 (Adobe, 1992); predictor 3: TIFF Technical Note 3.
"""

import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

LOSSLESS = {1, 5, 8, 32773, 32946, 34925, 50000}  # nothing, LZW, deflate, PackBits, deflate, LZMA, Zstandard
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK = 0, 1, 2, 5
CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, CMYK: 4}
MAX_BYTES = 2 << 30  # of unpacked samples
UNSIGNED, SIGNED, FLOAT, UNKNOWN = 1, 2, 3, 4


class Layout(NamedTuple):
    """What the tags say about the samples."""

    order: str  # "<" or ">"
    width: int
    height: int
    samples: int  # a pixel
    bits: int  # a sample
    kind: int  # unsigned, signed or float
    photometric: int
    compression: int
    predictor: int
    planar: bool
    fill_order: int
    tile: tuple[int, int] | None  # width and height
    rows_per_strip: int
    alpha: int  # how the sample after the colours is to be taken: 1 premultiplied, 2 not, 0 no alpha
    offsets: tuple[int, ...]  # of strips or tiles
    counts: tuple[int, ...]  # bytes of each


def tags(data: bytes) -> Directory | None:
    """The first directory of a TIFF; None if this is no TIFF or cannot be read as one."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        file = io.BytesIO(data)
        directory = Directory(file.read(16 if b"+" in data[:4] else 8))
        file.seek(directory.next)
        directory.load(file)
        dict(directory)  # values are unpacked when they are asked for
        return directory
    except Exception:  # of many kinds; Pillow then says what it thinks of the file
        return None


def layout(directory: Directory) -> Layout:
    get = lambda tag, default: directory.get(tag, default)
    first = lambda tag, default: value[0] if isinstance(value := get(tag, default), tuple) else value
    samples, photometric = first(277, 1), first(262, BLACK_IS_ZERO)
    bits, kinds = (
        set(as_tuple(get(258, 1))),
        {UNSIGNED if kind == UNKNOWN else kind for kind in as_tuple(get(339, UNSIGNED))},
    )
    tile = (first(322, 0), first(323, 0)) if 324 in directory else None
    width, height = first(256, 0), first(257, 0)
    extra = as_tuple(get(338, ()))
    return Layout(
        "<" if directory.prefix == b"II" else ">",
        width,
        height,
        samples,
        bits.pop() if len(bits) == 1 else 0,
        kinds.pop() if len(kinds) == 1 else 0,
        photometric,
        first(259, 1),
        first(317, 1),
        first(284, 1) == 2,
        first(266, 1),
        tile,
        min(first(278, height), height),
        extra[0] if extra and extra[0] in (1, 2) else 0,
        as_tuple(get(324 if tile else 273, ())),
        as_tuple(get(325 if tile else 279, ())),
    )


def as_tuple(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def is_unusual(shape: Layout) -> bool:
    """Whether Pillow would misread it, or not read it."""
    return shape.bits not in (1, 2, 4, 8) or shape.kind != UNSIGNED or (shape.planar and shape.samples > 1)


def read(data: bytes, shape: Layout) -> Image.Image:
    """The picture in 8 bits: mode L, LA, RGB, RGBA or CMYK.

    Raises:
        ValueError: it is damaged, or of a kind that is not read; the message says which.
    """
    colours = CHANNELS.get(shape.photometric, 0)
    known = shape.kind in (UNSIGNED, SIGNED, FLOAT) and 1 <= shape.bits <= (64 if shape.kind != UNSIGNED else 32)
    if not (known and colours and colours <= shape.samples <= 16 and shape.compression in LOSSLESS):
        raise ValueError(
            f"TIFF of {shape.samples} x {shape.bits} bits, colours of kind {shape.photometric}, compression "
            f"{shape.compression}, which is not read; save it as 8-bit or 16-bit RGB"
        )
    if shape.samples * max(shape.bits, 8) // 8 * shape.width * shape.height > MAX_BYTES:
        raise ValueError("its samples would fill more than 2 GiB")
    planes = shape.samples if shape.planar else 1
    pieces = len(shape.offsets) // planes
    if pieces < 1 or len(shape.offsets) != len(shape.counts):
        raise ValueError("its strips are missing")
    found = []
    for plane in range(planes if planes == 1 else min(planes, colours + (shape.alpha > 0))):
        part = slice(plane * pieces, (plane + 1) * pieces)
        found.append(unpack(data, shape, shape.offsets[part], shape.counts[part]))
    samples = np.concatenate(found, axis=-1)
    channels = colours + (1 if shape.alpha and samples.shape[-1] > colours and colours < 4 else 0)
    levels = to_levels(samples[..., :channels], shape)
    if shape.photometric == WHITE_IS_ZERO:
        levels[..., 0] = 255 - levels[..., 0]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "CMYK" if shape.photometric == CMYK else "RGBA"}[channels]
    if channels > colours and shape.alpha == 1:  # Pillow's names of premultiplied kinds
        return Image.frombytes({"LA": "La", "RGBA": "RGBa"}[mode], levels.shape[1::-1], levels.tobytes()).convert(mode)
    return Image.frombytes(mode, levels.shape[1::-1], levels.tobytes())


def unpack(data: bytes, shape: Layout, offsets: tuple[int, ...], counts: tuple[int, ...]) -> np.ndarray:
    """The samples of one plane, or of all that are interleaved: [H, W, S], in the file's own kind of number."""
    samples = 1 if shape.planar else shape.samples
    wide = shape.tile[0] if shape.tile else shape.width  # pixels that are packed together
    if wide < 1 or (shape.tile and shape.tile[1] < 1):
        raise ValueError("its tiles have no size")
    row_bytes = (wide * samples * shape.bits + 7) // 8
    across = -(-shape.width // wide)
    if row_bytes * across * shape.height > MAX_BYTES:
        raise ValueError("its samples would fill more than 2 GiB")
    show = {
        256: across * row_bytes,
        257: shape.height,
        258: 8,
        259: shape.compression,
        262: BLACK_IS_ZERO,
        266: shape.fill_order,
        277: 1,
        284: 1,
    }
    if shape.tile:
        show |= {322: row_bytes, 323: shape.tile[1], 324: offsets, 325: counts}
    else:
        show |= {273: offsets, 278: shape.rows_per_strip, 279: counts}
    with Image.open(io.BytesIO(with_directory(data, show)), formats=["TIFF"]) as bytes_of_it:
        rows = np.asarray(bytes_of_it).reshape(shape.height, across, row_bytes)
    found = find_samples(rows, shape, samples, wide)
    return found.reshape(shape.height, across * wide, samples)[:, : shape.width]


def with_directory(data: bytes, show: dict[int, int | tuple[int, ...]]) -> bytes:
    """The file with another directory at its end, little-endian: tags and their values."""
    data = data + bytes(len(data) % 2)
    entries, values = b"", b""
    after = len(data) + 2 + 12 * len(show) + 4
    for tag, value in sorted(show.items()):
        packed = struct.pack(f"<{len(as_tuple(value))}I", *as_tuple(value))
        if len(packed) > 4:
            packed, values = struct.pack("<I", after + len(values)), values + packed
        entries += struct.pack("<HHI", tag, 4, len(as_tuple(value))) + packed
    head = struct.pack("<2sHI", b"II", 42, len(data))
    return head + data[8:] + struct.pack("<H", len(show)) + entries + bytes(4) + values


def find_samples(rows: np.ndarray, shape: Layout, samples: int, wide: int) -> np.ndarray:
    """Bytes [H, across, row_bytes] -> samples [H, across, wide, S], without what a predictor took out."""
    size_bytes, count = shape.bits // 8, wide * samples
    if shape.predictor == 3 and shape.kind == FLOAT:
        summed = np.cumsum(rows.reshape(*rows.shape[:2], -1, samples), axis=2, dtype=np.uint8)
        planes = summed.reshape(*rows.shape[:2], size_bytes, count)
        flat = np.ascontiguousarray(np.moveaxis(planes, 2, 3)).view(f">f{size_bytes}")
        return flat.reshape(*rows.shape[:2], wide, samples)
    if shape.bits in (8, 16, 32, 64):
        letter = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[shape.kind]
        found = rows.view(f"{shape.order}{letter}{size_bytes}").reshape(*rows.shape[:2], wide, samples)
        if shape.predictor == 2:
            whole = found.view(f"{shape.order}u{size_bytes}")
            summed = np.cumsum(whole, axis=2, dtype=whole.dtype.newbyteorder("="))
            found = summed.view(f"={letter}{size_bytes}")
        return found
    if shape.kind == FLOAT or shape.predictor != 1:
        raise ValueError(f"TIFF of {shape.bits} bits with predictor {shape.predictor}, which is not read")
    weights = 1 << np.arange(shape.bits - 1, -1, -1, dtype=np.uint64)
    found = np.empty((*rows.shape[:2], count), np.uint32)
    for top in range(0, len(rows), 64):  # unpacked, a bit takes a byte
        bits = np.unpackbits(rows[top : top + 64], axis=-1)[..., : count * shape.bits]
        found[top : top + 64] = bits.reshape(*bits.shape[:2], count, shape.bits) @ weights
    if shape.kind == SIGNED:
        found = (found.astype(np.int64) ^ (1 << shape.bits - 1)) - (1 << shape.bits - 1)
    return found.reshape(*rows.shape[:2], wide, samples)


def to_levels(samples: np.ndarray, shape: Layout) -> np.ndarray:
    """To 0 .. 255: full scale of the kind of number; floats from 0 to 1, or to their largest if that is above 1."""
    top = {UNSIGNED: 2.0**shape.bits - 1, SIGNED: 2.0 ** (shape.bits - 1) - 1}.get(shape.kind, 1.0)
    if shape.kind == FLOAT:
        if not np.isfinite(samples).all():
            raise ValueError("pixels are not finite")
        top = max(float(samples.max()), 1.0)
    levels = np.empty(samples.shape, np.uint8)
    for row in range(0, len(samples), 256):
        part = samples[row : row + 256].astype(np.float64)
        levels[row : row + 256] = (part.clip(0, top) * (255 / top)).round()
    return levels
