"""A picture as few bytes of AV1, for a packet: the best still picture of libaom that fits.

    payload = scale (1 byte) | sequence header | frame

The scale says to which share of their length the sides were shrunk before coding, the rest are the two units (OBUs) of
an AV1 still picture. What else an AVIF file holds follows from its sides, and the receiver puts it there. Pillow brings
encoder and decoder.

Source of the layout: AV1 Image File Format 1.1 (AOMedia 2022), ISO/IEC 14496-12, AV1 Bitstream & Decoding Process 5.3.
"""

import io
import struct

import numpy as np
from PIL import AvifImagePlugin, Image, features

from ..errors import InputError

QUARTERS = 4, 3, 2, 1  # of a side that are coded: by the index, the first byte of a payload
SPEED, SPEED_LARGE = 6, 9  # of libaom, 0 to 10: a second or two for 512x512 pixels; seven qualities a scale are tried
LARGE = 1 << 20  # pixels
TUNE = "ssim"  # of libaom: less squared error and LPIPS at these rates than "iq", Pillow's choice
QUALITY_MAX = 95  # of Pillow, 0 to 100
MARKER = b"mdat"
SEQUENCE, FRAME = 0x0A, 0x32  # heads of the two units (OBUs), each with its size behind it


def fit(pixels: np.ndarray, size_bytes: int) -> bytes | None:
    """The payload of at most `size_bytes` with the least squared error, or None if none fits.

    Args:
        pixels: uint8 [H, W, 3].
    """
    best, least = None, np.inf
    for index in range(len(QUARTERS)):
        if best is not None and error(pixels, enlarged(shrunk(pixels, index), pixels.shape)) >= least:
            break  # coding only adds to the error of shrinking
        payload = largest(shrunk(pixels, index), index, size_bytes)
        if payload is not None and (found := error(pixels, show(payload, *pixels.shape[:2]))) < least:
            best, least = payload, found
    return best


def show(payload: bytes, height: int, width: int) -> np.ndarray:
    """The picture of a payload, uint8 [H, W, 3]; zeros may follow the payload.

    Raises:
        InputError: it is no such payload, or this Pillow has no AVIF.
    """
    require_avif()
    index = (payload or b"\xff")[0]
    if index >= len(QUARTERS):
        raise InputError("the packet holds a picture at an unknown scale; receive it with the sender's semcast")
    sides = coded_sides(height, width, index)
    try:
        sequence, frame = units_of(payload)
        if sides_of(sequence) != sides:  # before anything is decoded
            raise ValueError("its sides are others")
        with Image.open(io.BytesIO(contained(sequence, frame, *sides)), formats=["AVIF"]) as image:
            coded = np.asarray(image.convert("RGB"))
    except (OSError, RuntimeError, ValueError, IndexError, SyntaxError, Image.DecompressionBombError) as problem:
        raise InputError(f"the packet holds no picture that can be decoded ({problem})") from None
    return enlarged(coded, (height, width))


def length(payload: bytes) -> int:
    """Bytes of a payload without the zeros behind it."""
    return 1 + sum(map(len, units_of(payload)))


def units_of(payload: bytes) -> tuple[bytes, bytes]:
    """Sequence header and frame. Raises ValueError or IndexError if these are not what follows the scale."""
    found, at = [], 1
    for head in (SEQUENCE, FRAME):
        if payload[at] != head:
            raise ValueError("it is no still picture")
        size, start = leb128(payload, at + 1)
        if start + size > len(payload):
            raise ValueError("it is cut off")
        found.append(payload[at : start + size])
        at = start + size
    return found[0], found[1]


def sides_of(sequence: bytes) -> tuple[int, int]:
    """Height and width that a sequence header says, in the short form that still pictures have."""
    _, start = leb128(sequence, 1)
    bits = int.from_bytes(sequence[start : start + 8].ljust(8, b"\0"), "big")
    field = lambda at, count: bits >> (64 - at - count) & ((1 << count) - 1)
    if not field(3, 1) or not field(4, 1):  # still_picture, reduced_still_picture_header
        raise ValueError("it is no still picture")
    across, down = field(10, 4) + 1, field(14, 4) + 1  # bits of the sides
    return field(18 + across, down) + 1, field(18, across) + 1


def coder() -> str:
    """What a payload depends on beside the picture and its size."""
    require_avif()
    version = AvifImagePlugin.get_codec_version("aom")
    return f"libaom {version}, speed {SPEED}, tune {TUNE}, quarters {''.join(map(str, QUARTERS))}"


def require_avif() -> None:
    if not features.check("avif"):
        raise InputError(
            "this Pillow was built without AVIF, which packets of --mode mixed need; install Pillow's wheel"
        )


def largest(pixels: np.ndarray, index: int, size_bytes: int) -> bytes | None:
    """The payload of the highest quality that fits, by bisection."""
    low, high, best = -1, QUALITY_MAX + 1, None  # low fits, high does not
    while high - low > 1:
        quality = 0 if low < 0 else (low + high) // 2
        payload = bytes([index]) + encoded(pixels, quality)
        if len(payload) <= size_bytes:
            low, best = quality, payload
        else:
            high = quality
    return best


def encoded(pixels: np.ndarray, quality: int) -> bytes:
    """Sequence header and frame of a picture."""
    require_avif()
    buffer, speed = io.BytesIO(), SPEED if pixels[..., 0].size <= LARGE else SPEED_LARGE
    options = {"speed": speed, "subsampling": "4:2:0", "max_threads": 1, "advanced": {"tune": TUNE}}
    try:
        Image.fromarray(pixels).save(buffer, "AVIF", codec="aom", quality=quality, **options)
    except ValueError as error:  # no such encoder
        raise InputError(f"this Pillow cannot make packets of --mode mixed ({error}); install its wheel") from None
    file = buffer.getvalue()
    units, at = file[file.index(MARKER) + len(MARKER) :], 0
    if units[0] >> 3 == 2:  # a temporal delimiter, which says nothing
        size, start = leb128(units, 1)
        at = start + size
    return units[at:]


def contained(sequence: bytes, frame: bytes, height: int, width: int) -> bytes:
    """The AVIF file around sequence header and frame of a still picture in 8-bit 4:2:0 of sRGB."""
    _, start = leb128(sequence, 1)
    level = (sequence[start] & 7) << 2 | sequence[start + 1] >> 6  # behind profile and the two flags of `sides_of`
    config = bytes([0x81, level, 0x0C, 0])  # AV1CodecConfigurationRecord: profile 0, 8 bits, 4:2:0
    units = sequence + frame
    properties = [
        full("ispe", struct.pack(">II", width, height)),
        full("pixi", bytes([3, 8, 8, 8])),
        box("av1C", config),
        box("colr", b"nclx" + struct.pack(">HHHB", 1, 13, 6, 0x80)),  # BT.709, sRGB, BT.601, full range
    ]
    before = [
        full("hdlr", bytes(4) + b"pict" + bytes(13)),
        full("pitm", struct.pack(">H", 1)),
        full("iinf", struct.pack(">H", 1) + box("infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"av01Color\0")),
        box("iprp", box("ipco", *properties) + full("ipma", struct.pack(">IHB", 1, 1, 4) + bytes([1, 2, 0x83, 4]))),
    ]
    kind = box("ftyp", b"avif" + bytes(4) + b"avifmif1miafMA1B")
    place = lambda start: full("iloc", struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, start, len(units)))
    meta = lambda start: full("meta", *before[:2], place(start), *before[2:])
    return kind + meta(len(kind) + len(meta(0)) + 8) + box("mdat", units)


def box(name: str, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + name.encode() + content


def full(name: str, *parts: bytes) -> bytes:
    """A box with version and flags."""
    return box(name, bytes(4), *parts)


def leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place behind it."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128 or shift > 28:
            return value, at


def coded_sides(height: int, width: int, index: int) -> tuple[int, int]:
    return -(-height * QUARTERS[index] // 4), -(-width * QUARTERS[index] // 4)


def shrunk(pixels: np.ndarray, index: int) -> np.ndarray:
    height, width = coded_sides(pixels.shape[0], pixels.shape[1], index)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)) if index else pixels


def enlarged(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if pixels.shape[:2] == shape[:2]:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float32) - b).mean())
