"""JPEG XL over 5G LDPC and QAM chosen by the SNR: a rival that is no part of semcast, in one file.

The package `pillow-jxl-plugin` teaches JPEG XL to Pillow. Payloads are whole codestreams: the few bytes of header that are
the same for all pictures of a size, which the built-in codecs do not send, are sent and counted here.
"""

import io
from functools import partial
from importlib.metadata import version as version_of

import numpy as np
import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow
from PIL import Image

from semcast.bench.base import System
from semcast.bench.codecs import CODECS, Codec
from semcast.bench.coded import link_version, receive_codec, send_codec


def encode(picture: Image.Image, step: int) -> bytes:
    """A picture and a quality step, 0 the smallest -> a codestream."""
    buffer = io.BytesIO()
    picture.save(buffer, "JXL", quality=step, effort=7)
    return buffer.getvalue()


def decode(payload: bytes, height: int, width: int) -> np.ndarray:
    """-> uint8 [height, width, 3]"""
    return np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"))


def version() -> str:
    return f"pillow-jxl-plugin {version_of('pillow-jxl-plugin')}, {link_version()}"


CODECS["jpegxl"] = Codec(encode, decode, steps=91, multiple=1, version=version)
JPEGXL = System(
    "JPEG XL over 5G LDPC and QAM chosen by the SNR",
    partial(send_codec, "jpegxl", "ldpc"),
    partial(receive_codec, "jpegxl", "ldpc"),
    digital=True,
    needs=("sionna",),
    version=version,
)
