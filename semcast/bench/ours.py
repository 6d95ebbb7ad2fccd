"""The systems `semcast` ...: the link, with any model, as a receiver that knows all, less, or takes bytes."""

import functools
import hashlib
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from ..cascade.config import ENHANCEMENT, RESTORER, load_config
from ..cascade.engine import Engine, load_model
from ..cascade.models import find_model
from ..channels.base import Received, ones
from ..errors import InputError, Lost
from ..header import FACTOR_MAX, FACTOR_MIN, FACTOR_UNIT, Header, pack, unpack
from ..images import to_image, to_pixels
from ..link import Link
from ..modulation import avif
from ..modulation.ladder import rungs_within
from ..modulation.modems import on_air
from ..modulation.packet import VERSION as PACKET_VERSION
from ..transmitter import packet_within, top_rung
from .base import NOTHING, Side, System, mean_colour
from .pictures import sides_of


def send_semcast(
    pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str, mode: str, fixed_db: float | None = None
) -> tuple[np.ndarray, Side]:
    """Send over the link at the largest `factor` that the uses allow. A packet that does not fit becomes no symbols."""
    link = load_link(model, device, True, mode)
    factor = largest_factor(*sides_of(pixels), uses, link.engine.config.factor)
    colour = mean_colour(pixels) if mode == "digital" else {}
    try:
        sent = link.send(to_image(pixels), snr_db if fixed_db is None else fixed_db, factor=factor)
    except Lost:
        return NOTHING, header_side(Header(0, *sides_of(pixels), factor, 1.0)) | colour
    return on_air(sent), header_side(sent.header) | colour


def header_side(header: Header) -> Side:
    return {"header": (int.from_bytes(pack(header), "big"), header.side_bits)}


def receive_semcast(received: Received, side: Side, model: str, device: str, steps: int | None) -> np.ndarray | None:
    return receive_by(load_link(model, device, False, "analog"), received, side, steps)


def receive_by(link: Link, received: Received, side: Side, steps: int | None = None) -> np.ndarray | None:
    """The receiver's seed is the CRC-32 of the header: another for every picture, and made of what arrived."""
    value, bits = side["header"]
    header = value.to_bytes(bits // 8, "big")
    try:
        return to_pixels(link.receive(received, unpack(header), steps, seed=zlib.crc32(header)))
    except Lost:
        return None


@functools.lru_cache(maxsize=4)
def load_link(model: str, device: str, low_memory: bool, mode: str) -> Link:
    return Link(load_engine(model, device, low_memory), mode=mode)


@functools.lru_cache(maxsize=2)
def load_engine(model: str, device: str, low_memory: bool) -> Engine:
    return load_model(model, device, low_memory=low_memory and device != "cpu")


def largest_factor(height: int, width: int, uses: int, default: float) -> float:
    """The factor that sends most symbols within `uses`; among equals, the one nearest the model's default."""
    factors = [i / FACTOR_UNIT for i in range(round(FACTOR_MIN * FACTOR_UNIT), round(FACTOR_MAX * FACTOR_UNIT) + 1)]
    counts = {factor: semcast_uses(height, width, factor) for factor in factors}
    if min(counts.values()) > uses:
        raise InputError(
            f"{uses} channel uses are too few for semcast at {width}x{height} pixels: it needs {min(counts.values())}"
        )
    return max((f for f in factors if counts[f] <= uses), key=lambda f: (counts[f], -abs(f - default)))


def semcast_uses(height: int, width: int, factor: float) -> int:
    return Header(0, height, width, factor, 1.0).channel_uses


@functools.cache
def model_version(model: str) -> str:
    """Name and version of a model: the hash of its weight files, or that of the files whose figures hold for them."""
    folder = model_folder(model)
    files = sorted(folder.glob("*.safetensors"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    return f"{folder.name} {load_config(folder).same_as or digest}"


def model_folder(model: str) -> Path:
    folder = find_model(model).folder
    assert folder is not None  # `find_model` refuses a model that is not here
    return folder


def semcast(model: str, device: str, steps: int | None = None) -> System:
    asked = f"{steps} diffusion step" + "s" * (steps > 1) if steps else "as many diffusion steps as the model asks for"
    send = partial(send_semcast, model=model, device=device, mode="analog")
    receive = partial(receive_semcast, model=model, device=device, steps=steps)
    return System(f"semcast, {asked}", send, receive, version=partial(model_version, model))


def semcast_ladder(model: str, device: str) -> System:
    send = partial(send_ladder, model=model, device=device)
    receive = partial(receive_semcast, model=model, device=device, steps=None)
    about = "semcast, as many rungs as the uses carry: a part of Z, or Z and what refines its picture"
    return System(about, send, receive, version=lambda: f"{model_version(model)}, {enhancement_version(model)}")


def semcast_mixed(model: str, device: str) -> System:
    send = partial(send_mixed, model=model, device=device)
    receive = partial(receive_semcast, model=model, device=device, steps=None)
    about = "semcast, the base as analog symbols and the picture as a packet behind it"
    version = lambda: f"{model_version(model)}, restorer {file_version(model, RESTORER)}, {avif.coder()}"
    return System(about, send, receive, digital=True, needs=("sionna",), version=version)


def send_mixed(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[np.ndarray, Side]:
    """The base alone where the uses are too few for a packet."""
    link = load_link(model, device, True, "mixed")
    base = Header(0, *sides_of(pixels), link.engine.config.factor, 1.0)
    sent = link.send(to_image(pixels), snr_db, packet=packet_within(uses, base))
    return on_air(sent), header_side(sent.header)


def send_ladder(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[np.ndarray, Side]:
    link = load_link(model, device, True, "analog")
    config = link.engine.config
    header = Header(0, *sides_of(pixels), config.factor, 1.0)
    sent = link.send(to_image(pixels), rungs=rungs_within(uses, header, top=top_rung(config)))
    return on_air(sent), header_side(sent.header)


def enhancement_version(model: str) -> str:
    """Hash of the layers above Z, which `model_version` need not know of."""
    return f"layers {file_version(model, ENHANCEMENT)}"


@functools.cache
def file_version(model: str, network: str) -> str:
    path = model_folder(model) / f"{network}.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "none"


def semcast_told_less(model: str, device: str, told: str) -> System:
    """semcast with a receiver that is told less about the noise of the same transmissions."""
    about = {
        "mean": "semcast, whose Stage B is told the mean noise, not where it is",
        "one": "semcast, told one noise variance for all symbols",
    }[told]
    send = partial(send_semcast, model=model, device=device, mode="analog")
    receive = partial(receive_told_less, model=model, device=device, told=told)
    return System(about, send, receive, version=partial(model_version, model))


def receive_told_less(received: Received, side: Side, model: str, device: str, told: str) -> np.ndarray | None:
    if told == "one":
        return receive_semcast(one_variance(received), side, model, device, None)
    return receive_by(load_mapless(model, device), received, side)


@functools.lru_cache(maxsize=1)
def load_mapless(model: str, device: str) -> Link:
    """The link with a Stage B that is told only the mean noise."""
    engine = load_model(model, device)
    map_z = engine.map_z
    engine.map_z = lambda z, noise, size: map_z(z, None, size)
    return Link(engine)


def one_variance(received: Received) -> Received:
    """Hide from a receiver where the noise is: y / h [B, K], h = 1 and one noise_var [B, 1].

    This models a modem that hands over equalised symbols and one SNR for all of them. noise_var is the mean noise after
    equalising, over the symbols that arrived. That makes 1 / (1 + noise_var) the best single MMSE weight: it equals
    E[conj(x) y] / E|y|^2 for y = x + e, and zeros for lost symbols do not change this ratio.

    With OFDM and LS, y is equalised and h = 1 already. In a deep fade a few symbols have hundreds of times the noise;
    they dominate the mean and stay as large as the division by a small h made them. With erasures, a lost symbol is a
    zero that is believed to have the noise of those that arrived.
    """
    y, h, noise_var = received
    power = np.maximum(np.abs(h) ** 2, 1e-12)
    noise = np.broadcast_to(noise_var / power, y.shape)
    arrived = np.isfinite(noise)
    mean = np.where(arrived, noise, 0).sum(axis=1, keepdims=True) / arrived.sum(axis=1, keepdims=True)
    return Received(np.where(arrived, h.conj() * y / power, 0), ones(y), mean)


def semcast_digital(model: str, device: str, fixed_db: float | None = None) -> System:
    send = partial(send_semcast, model=model, device=device, mode="digital", fixed_db=fixed_db)
    receive = partial(receive_semcast, model=model, device=device, steps=None)
    suits = "chosen by the SNR" if fixed_db is None else f"that suit {fixed_db:g} dB, at every SNR"
    version = lambda: f"{model_version(model)}, packets of frame version {PACKET_VERSION}"
    about = f"semcast's Z as a packet of bytes over 5G LDPC and QAM {suits}"
    return System(about, send, receive, digital=True, needs=("sionna",), version=version)
