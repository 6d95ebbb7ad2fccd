"""Classical picture codecs with a limit on the payload: the best picture that fits a budget of bytes.

Whatever is the same for every picture of a size (JPEG 2000's main header, the parameter sets of HEVC and VVC, AV1's
sequence header) is not sent: the receiver encodes a grey picture of that size and takes it from there. Pictures may be
coded at a half, a quarter or an eighth of their sides; without that the codecs would not work at these rates. JPEG 2000
is Pillow's OpenJPEG; the others are encoders of the ffmpeg that comes with imageio-ffmpeg, in 10-bit 4:2:0.
"""

import functools
import io
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from ..errors import InputError, brings
from .cost import remembered

SCALES = (1, 2, 4, 8)  # the sides are divided by one of these; its index travels in 2 bits
SIDE_MIN = 32  # the smallest side to which a picture is shrunk
SIZE_MAX = 65535  # bytes of a payload, whose size travels in 16 bits
GREY = 128


class Codec(NamedTuple):
    encode: Callable[[Image.Image, int], bytes]  # picture, quality step (0 is the lowest) -> payload without headers
    decode: Callable[[bytes, int, int], np.ndarray]  # payload, height, width -> uint8 [H, W, 3]
    steps: int  # number of quality steps; they end at a quantiser of 8, below which encoders fail on small pictures
    multiple: int  # the sides of a coded picture are multiples of this
    version: Callable[[], str]


def fit(name: str, pixels: np.ndarray, budget: int) -> tuple[bytes, int] | None:
    """The payload of at most `budget` bytes with the least squared error, and its scale's index; None if none fits.

    Args:
        pixels: uint8 [H, W, 3].
    """
    best, budget = None, min(budget, SIZE_MAX)
    size, error = pixels.shape[:2], lambda seen: np.square(seen.astype(float) - pixels).mean()
    for index in range(len(SCALES)):
        if index and best:  # coding only adds to the error of shrinking
            small = shrink(Image.fromarray(pixels), *coded_size(name, index, *size), index)
            if error(enlarge(np.asarray(small), index, *size)) >= best[0]:
                break
        payload = largest(name, pixels, index, budget)
        if payload is not None:
            candidate = (error(show(name, payload, index, *size)), payload, index)
            best = min(best or candidate, candidate)
    return best and best[1:]


def largest(name: str, pixels: np.ndarray, index: int, budget: int) -> bytes | None:
    """The payload of the highest quality step that fits, at one scale. Steps are tried from the lowest up."""
    height, width = coded_size(name, index, *pixels.shape[:2])
    if index and min(height, width) < SIDE_MIN:
        return None
    data = _one_copy(pixels.tobytes())
    attempt = lambda step: _encode(name, data, pixels.shape[:2], index, step)
    best = attempt(0)
    if len(best) > budget:
        return None
    low, high, stride = 0, None, 1  # low fits, high does not
    while low < CODECS[name].steps - 1 and (high is None or high - low > 1):
        step = min(low + stride, CODECS[name].steps - 1) if high is None else (low + high) // 2
        payload = attempt(step)
        if len(payload) <= budget:
            low, best, stride = step, payload, 2 * stride
        else:
            high = step
    return best


@functools.lru_cache(maxsize=4)
def _one_copy(data: bytes) -> bytes:
    """Return one object for equal bytes; otherwise every remembered encoding would hold its own copy of the picture."""
    return data


@remembered(maxsize=2048)
def _encode(name: str, pixels: bytes, size: tuple[int, int], index: int, step: int) -> bytes:
    """Remembered because every SNR, link and draw of a picture asks for the same few encodings."""
    picture = Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(*size, 3))
    return CODECS[name].encode(shrink(picture, *coded_size(name, index, *size), index), step)


def coded_size(name: str, index: int, height: int, width: int) -> tuple[int, int]:
    unit = CODECS[name].multiple
    height, width = (-(-side // (SCALES[index] * unit)) * unit for side in (height, width))
    return height, width


def shrink(picture: Image.Image, height: int, width: int, index: int) -> Image.Image:
    """Resize a picture to its coded size; at full size (index 0), repeat its last row and column instead."""
    if index:
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    below, right = height - picture.height, width - picture.width
    return Image.fromarray(np.pad(np.asarray(picture), ((0, below), (0, right), (0, 0)), mode="edge"))


@remembered(maxsize=64)
def show(name: str, payload: bytes, index: int, height: int, width: int) -> np.ndarray:
    """The picture a receiver makes of a payload: uint8 [height, width, 3]."""
    return enlarge(CODECS[name].decode(payload, *coded_size(name, index, height, width)), index, height, width)


def enlarge(coded: np.ndarray, index: int, height: int, width: int) -> np.ndarray:
    """Undo `shrink`."""
    if index:
        return np.asarray(Image.fromarray(coded).resize((width, height), Image.Resampling.BICUBIC))
    return coded[:height, :width]


# JPEG 2000


def encode_jpeg2000(picture: Image.Image, step: int) -> bytes:
    return split_jpeg2000(_jpeg2000(picture, round(132 + 8 * 1.02**step)))[1]  # the header takes 129 bytes


def decode_jpeg2000(payload: bytes, height: int, width: int) -> np.ndarray:
    header = bytearray(split_jpeg2000(_jpeg2000(Image.new("RGB", (width, height), (GREY,) * 3), 1000))[0])
    start = header.index(b"\xff\x90")  # start of tile-part: marker, length, tile, then the size counted from the marker
    header[start + 6 : start + 10] = (len(header) - start + len(payload)).to_bytes(4, "big")
    with Image.open(io.BytesIO(bytes(header) + payload + b"\xff\xd9")) as picture:
        return np.asarray(picture.convert("RGB"))


def _jpeg2000(picture: Image.Image, size_bytes: int) -> bytes:
    """Encode one layer of about this size, header included. Pillow decorrelates the colours only if mct asks for it."""
    buffer = io.BytesIO()
    layers = [picture.width * picture.height * 3 / size_bytes]
    resolutions = min(7, min(picture.size).bit_length())
    options = {"no_jp2": True, "irreversible": True, "mct": 1, "num_resolutions": resolutions, "comment": b"x"}
    picture.save(buffer, "JPEG2000", quality_mode="rates", quality_layers=layers, **options)
    return buffer.getvalue()


def split_jpeg2000(data: bytes) -> tuple[bytes, bytes]:
    """Split at the start of the data: (header with the start-of-data marker, data without the end marker)."""
    start = data.index(b"\xff\x93") + 2
    return data[:start], data[start:-2]


# HEVC, VVC and AV1, with ffmpeg


def encode_ffmpeg(codec: str, picture: Image.Image, step: int) -> bytes:
    return SPLIT[codec](_ffmpeg_encode(codec, picture, step))[1]


def decode_ffmpeg(codec: str, payload: bytes, height: int, width: int) -> np.ndarray:
    data = join(codec, payload, height, width)
    pixels = ffmpeg(
        "-f", FORMATS[codec], "-i", "-", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-", data=data
    )
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def join(codec: str, payload: bytes, height: int, width: int) -> bytes:
    head = constant(codec, height, width)
    if codec != "avif":
        return head + b"\0\0\1" + payload
    size, rest = [], len(payload)
    while rest > 127:
        size.append(rest & 127 | 128)
        rest >>= 7
    return head + bytes([6 << 3 | 2, *size, rest]) + payload


@remembered(maxsize=64)
def constant(codec: str, height: int, width: int) -> bytes:
    """The part that is the same for every picture of a size, taken from a grey one."""
    return SPLIT[codec](_ffmpeg_encode(codec, Image.new("RGB", (width, height), (GREY,) * 3), 20))[0]


def _ffmpeg_encode(codec: str, picture: Image.Image, step: int) -> bytes:
    read = f"-f rawvideo -pix_fmt rgb24 -s {picture.width}x{picture.height} -i - -frames:v 1".split()
    convert = ("-sws_flags", "lanczos+accurate_rnd+full_chroma_int", "-pix_fmt", "yuv420p10le")
    return ffmpeg(*read, *convert, *ARGUMENTS[codec](step), "-f", FORMATS[codec], "-", data=picture.tobytes())


def ffmpeg(*arguments: str, data: bytes = b"") -> bytes:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise InputError(f"this codec needs ffmpeg ({error}): {brings('bench')}") from None
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-threads", "1", *arguments]
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"ffmpeg {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout


def split_nal(data: bytes, kind: Callable[[bytes], int], constant: set[int]) -> tuple[bytes, bytes]:
    """Annex B stream -> (parameter sets with their start codes, the other units joined by start codes)."""
    units = [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:]]  # a zero may precede a start code
    head = b"".join(b"\0\0\1" + unit for unit in units if kind(unit) in constant)
    return head, b"\0\0\1".join(unit for unit in units if kind(unit) not in constant)


def split_obu(data: bytes) -> tuple[bytes, bytes]:
    """AV1 stream -> (temporal delimiter and sequence header, content of its one frame)."""
    head, frames, at = b"", [], 0
    while at < len(data):
        kind, start, size, shift = data[at] >> 3 & 15, at + 1, 0, 0
        while True:  # leb128
            byte, start = data[start], start + 1
            size, shift = size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        if kind == 6:
            frames.append(data[start : start + size])
        elif kind in (1, 2):
            head += data[at : start + size]
        at = start + size
    if len(frames) != 1:
        raise RuntimeError(f"libaom wrote {len(frames)} frames")
    return head, frames[0]


FORMATS = {"hevc": "hevc", "vvc": "vvc", "avif": "obu"}
SPLIT = {
    # VPS, SPS, PPS, AUD, SEI
    "hevc": lambda data: split_nal(data, lambda unit: unit[0] >> 1 & 63, {32, 33, 34, 35, 39, 40}),
    # OPI, DCI, VPS, SPS, PPS, AUD, SEI
    "vvc": lambda data: split_nal(data, lambda unit: unit[1] >> 3, {12, 13, 14, 15, 16, 20, 23, 24}),
    "avif": split_obu,
}
_X265 = "keyint=1:info=0:log-level=none:pools=none:frame-threads=1:qp="
ARGUMENTS = {
    "hevc": lambda step: f"-c:v libx265 -preset veryslow -x265-params {_X265}{51 - step}".split(),
    "vvc": lambda step: f"-c:v libvvenc -preset medium -threads 1 -qp {63 - step}".split(),
    "avif": lambda step: f"-c:v libaom-av1 -still-picture 1 -cpu-used 2 -threads 1 -crf {63 - step}".split(),
}


@functools.cache
def ffmpeg_version() -> str:
    return ffmpeg("-version").decode().splitlines()[0].split(" Copyright")[0]


def _by_ffmpeg(codec: str, steps: int, about: str) -> Codec:
    encode, decode = functools.partial(encode_ffmpeg, codec), functools.partial(decode_ffmpeg, codec)
    return Codec(encode, decode, steps, 8, lambda: f"{about}, {ffmpeg_version()}")


CODECS = {
    "jpeg2000": Codec(encode_jpeg2000, decode_jpeg2000, 500, 1, lambda: f"OpenJPEG {features.version('jpg_2000')}"),
    "hevc": _by_ffmpeg("hevc", 44, "libx265 veryslow"),
    "vvc": _by_ffmpeg("vvc", 56, "libvvenc medium"),
    "avif": _by_ffmpeg("avif", 56, "libaom cpu-used 2"),
}
