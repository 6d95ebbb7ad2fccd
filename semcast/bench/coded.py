"""The systems `jpeg2000-ldpc` ...: a codec's best picture within the bytes that a digital link carries."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import math
from functools import partial

import numpy as np

from ..channels.base import Received
from ..modulation import mcs as schemes
from ..modulation.capacity import capacity, normal_approximation
from . import codecs
from .base import NOTHING, Side, System, mean_colour, sides

FINITE_LOSS = 0.01  # block error probability of the `finite` links
FIXED_DB = 10.0  # `fixed` links use at every SNR the scheme that is best at this one
NAMES = {"jpeg2000": "JPEG 2000", "hevc": "HEVC intra (x265)", "vvc": "VVC intra (vvenc)", "avif": "AV1 still (libaom)"}
LINKS = {
    "ldpc": "5G LDPC and QAM chosen by the SNR",
    "fixed": f"5G LDPC and QAM that suit {FIXED_DB:g} dB, at every SNR",
    "capacity": "an error-free link at Shannon's capacity: a bound",
    "finite": f"an ideal code of finite length, {FINITE_LOSS:.0%} of blocks lost: nearly a bound",
}


def send_codec(codec: str, link: str, pixels: np.ndarray, uses: int, snr_db: float) -> tuple[np.ndarray | bytes, Side]:
    mcs = schemes.choose(uses, snr_db if link == "ldpc" else FIXED_DB) if link in ("ldpc", "fixed") else None
    budget = ideal_bits(link, uses, snr_db) // 8 if mcs is None else schemes.plan(uses, mcs).payload_bytes
    found = codecs.fit(codec, pixels, budget)
    payload, scale = found or (b"", 0)
    side = {**sides(pixels), **mean_colour(pixels), "size": (len(payload), 16), "scale": (scale, 2)}
    if link == "ldpc":
        side["scheme"] = (schemes.TABLE.index(mcs) if mcs else 0, 5)
    if link in ("capacity", "finite"):
        return payload, side
    if not (payload and mcs):
        return NOTHING, side
    from ..modulation import ldpc

    return ldpc.encode([payload], uses, mcs), side


def receive_codec(codec: str, link: str, received: Received | bytes, side: Side) -> np.ndarray | None:
    payload = received if isinstance(received, bytes) else decode_payload(link, received, side)
    return codecs.show(codec, payload, side["scale"][0], side["height"][0], side["width"][0]) if payload else None


def decode_payload(link: str, received: Received, side: Side) -> bytes | None:
    mcs = schemes.TABLE[side["scheme"][0]] if link == "ldpc" else schemes.choose(received.y.shape[1], FIXED_DB)
    if mcs is None:
        return None
    from ..modulation import ldpc

    return ldpc.decode(received, mcs, [side["size"][0]])[0]


def ideal_bits(link: str, uses: int, snr_db: float) -> int:
    """The most bits of a payload on an ideal link; 0 on a real link, which gets here when no scheme was found."""
    bits = {
        "capacity": lambda: uses * capacity(snr_db),
        "finite": lambda: normal_approximation(uses, snr_db, FINITE_LOSS),
    }
    return math.floor(bits[link]()) if link in bits else 0


def codec_system(codec: str, link: str) -> System:
    real = link in ("ldpc", "fixed")
    needs = ("sionna",) * real + ("imageio_ffmpeg",) * (codec != "jpeg2000")
    send, receive = partial(send_codec, codec, link), partial(receive_codec, codec, link)
    version = lambda: codecs.CODECS[codec].version() + f", {link_version()}" * real
    about = f"{NAMES[codec]} over {LINKS[link]}"
    return System(about, send, receive, "channel" if real else link, real, needs, version)


@functools.cache
def link_version() -> str:
    """Version of the digital link: the hash of its error curves, which decide the scheme, and its decoder's version."""
    sionna = importlib.metadata.version("sionna-no-rt") if importlib.util.find_spec("sionna") else "missing"
    return f"link {hashlib.sha256(schemes.CURVES.read_bytes()).hexdigest()[:8]}, sionna {sionna}"
