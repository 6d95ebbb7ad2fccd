"""What the bench measures. A system is a sender and a receiver, which run in separate processes (`ends.py`):

    send(pixels, uses, snr_db) -> (x, side)     pixels uint8 [H, W, 3]; x [1, k] complex, k <= uses, mean |x|^2 = 1
    receive(received, side) -> pixels           `channel.Received` of [1, k] tensors; None: lost, show the mean colour

side = {name: [value, bits]}: whole numbers 0 <= value < 2^bits, error-free, counted by the harness. The mean colour is in
the fields red, green and blue. Senders know the average SNR and neither the noise nor which draw it is. An ideal link takes
a payload of bytes for x, delivers it whole or not at all, and the harness checks its size against the theory.

Your own: `--systems package.module:NAME` with NAME a `System`.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from .. import __version__, packet
from ..channel import Received
from ..errors import InputError, Lost
from ..frame import VERSION
from ..images import to_pixels, to_tensor
from ..phy.capacity import capacity, normal_approximation
from ..transmitter import FACTOR_MAX, FACTOR_MIN, FACTOR_UNIT, HEADER_BITS, Header
from . import codecs, deepjscc

FINITE_LOSS = 0.01  # block error probability of the `finite` links
FIXED_DB = 10.0  # `fixed` links use the scheme that is best here, at every SNR
Side = dict[str, tuple[int, int]]


class System(NamedTuple):
    about: str
    send: Callable
    receive: Callable
    link: str = "channel"  # or "capacity", "finite": ideal links for payloads, on AWGN
    digital: bool = False  # its constellation, not every picture, has unit power
    needs: tuple[str, ...] = ()  # packages beyond the plain installation
    version: Callable[[], str] = lambda: __version__
    ready: Callable[[], None] = lambda: None  # raises InputError if it cannot run


# semcast


def send_semcast(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[torch.Tensor, Side]:
    x, header = encode_semcast(pixels, uses, model, device)
    return x, header_side(header)


def encode_semcast(pixels: np.ndarray, uses: int, model: str, device: str) -> tuple[torch.Tensor, Header]:
    link = load_link(model, device, True)
    factor = largest_factor(*pixels.shape[:2], uses, link.cascade.config.factor)
    seed = zlib.crc32(pixels.tobytes())  # of the receiver's diffusion noise
    return link.send(to_tensor(pixels).to(device), factor, seed)


def header_side(header: Header) -> Side:
    kinds = {"version": VERSION, "factor": round(header.factor * FACTOR_UNIT), "gain": float16_bits(header.gain)}
    values = {name: kinds.get(name, getattr(header, name, 0)) for name in HEADER_BITS}
    values["header_crc"] = zlib.crc32(str(values).encode())
    return {name: (values[name], bits) for name, bits in HEADER_BITS.items()}


def send_digital(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[torch.Tensor, Side]:
    """The same code as a packet of bytes (`--mode digital`)."""
    x, header = encode_semcast(pixels, uses, model, device)
    try:
        payload, header = packet.prepare(x, header, load_link(model, device, True).basis, snr_db)
    except Lost:  # nothing fits
        return torch.zeros(1, 0, dtype=torch.complex64), header_side(header) | mean_colour(pixels)
    return packet.on_air(payload, header), header_side(header) | mean_colour(pixels)


def receive_semcast(received: Received, side: Side, model: str, device: str, steps: int | None) -> np.ndarray | None:
    values = {field.name: side[field.name][0] for field in dataclasses.fields(Header) if field.name in side}
    header = Header(**values | {"factor": values["factor"] / FACTOR_UNIT, "gain": float16(values["gain"])})
    link = load_link(model, device, False)
    try:
        received = link.unpack(received, header)
    except Lost:
        return None
    return to_pixels(link.receive(Received(*(part.to(device) for part in received)), header, steps))


@functools.lru_cache(maxsize=2)
def load_link(model: str, device: str, low_memory: bool):
    from ..link import Link
    from ..models import load_model

    return Link(load_model(model, device, low_memory=low_memory))


def largest_factor(height: int, width: int, uses: int, default: float) -> float:
    """The factor that sends most symbols within `uses`; of several the one nearest the model's default."""
    factors = [i / FACTOR_UNIT for i in range(round(FACTOR_MIN * FACTOR_UNIT), round(FACTOR_MAX * FACTOR_UNIT) + 1)]
    counts = {factor: semcast_uses(height, width, factor) for factor in factors}
    if min(counts.values()) > uses:
        raise InputError(f"{uses} channel uses are too few for semcast at {width}x{height} pixels: it needs {min(counts.values())}")
    return max((f for f in factors if counts[f] <= uses), key=lambda f: (counts[f], -abs(f - default)))


def semcast_uses(height: int, width: int, factor: float) -> int:
    return Header(0, height, width, factor, 1.0, 0).channel_uses


@functools.cache
def model_version(model: str) -> str:
    """Name and the hash of its weights."""
    from pathlib import Path

    from ..models import known_models

    known = known_models().get(model)
    folder = known.folder if known else Path(model)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"{folder.name if folder else model} {digest[:16]}"


def semcast(model: str, device: str, steps: int | None) -> System:
    about = f"semcast, {f'{steps} diffusion step' + 's' * (steps > 1) if steps else 'as many diffusion steps as the model asks for'}"
    send, receive = partial(send_semcast, model=model, device=device), partial(receive_semcast, model=model, device=device, steps=steps)
    return System(about, send, receive, version=partial(model_version, model))


def semcast_digital(model: str, device: str) -> System:
    send, receive = partial(send_digital, model=model, device=device), partial(receive_semcast, model=model, device=device, steps=None)
    about = "semcast's code as a packet of bytes over 5G LDPC and QAM chosen by the SNR"
    version = lambda: f"{model_version(model)}, packets of frame version {VERSION}"  # noqa: E731
    return System(about, send, receive, digital=True, needs=("sionna", "constriction"), version=version)


# Analog rivals without a trained transmitter


def send_downscale(pixels: np.ndarray, uses: int, snr_db: float) -> tuple[torch.Tensor, Side]:
    from ..baselines import shrink

    x, mean, gain = shrink(to_tensor(pixels), uses)
    red, green, blue = (mean.flatten() * 255).round().int().tolist()
    return x, {**sides(pixels), "red": (red, 8), "green": (green, 8), "blue": (blue, 8), "gain": (float16_bits(gain.item()), 16)}


def receive_downscale(received: Received, side: Side) -> np.ndarray:
    from ..baselines import enlarge

    mean = torch.tensor([side[name][0] / 255 for name in ("red", "green", "blue")]).view(1, 3, 1, 1)
    return to_pixels(enlarge(received, mean, float16(side["gain"][0]), (side["height"][0], side["width"][0])))


@torch.inference_mode()
def send_stage_a(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[torch.Tensor, Side]:
    """The picture shrunk until its Stage A latent, 4 numbers for 4x4 pixels, fits."""
    stage_a = load_link(model, device, False).cascade.stage_a
    height, width = stage_a_grid(*pixels.shape[:2], uses)
    small = torch.nn.functional.interpolate(to_tensor(pixels), size=(4 * height, 4 * width), mode="bilinear", antialias=True)
    latent = stage_a.encode(small.to(device, next(stage_a.parameters()).dtype)).float().cpu()  # [1, 4, h, w]
    mean = latent.mean(dim=(2, 3)).half().float()  # [1, 4]
    z = (latent - mean[..., None, None]).flatten(1)
    gain = z.square().mean().mul(2).clamp_min(1e-12).rsqrt()
    means = {f"mean{i}": (float16_bits(value), 16) for i, value in enumerate(mean[0].tolist())}
    x = torch.complex(*(gain * z).chunk(2, dim=1))
    return x, {**sides(pixels), **means, "gain": (float16_bits(gain.item()), 16)}


@torch.inference_mode()
def receive_stage_a(received: Received, side: Side, model: str, device: str) -> np.ndarray:
    from ..baselines import samples

    stage_a = load_link(model, device, False).cascade.stage_a
    sides = side["height"][0], side["width"][0]
    z = samples(received) / float16(side["gain"][0])
    mean = torch.tensor([float16(side[f"mean{i}"][0]) for i in range(4)]).view(1, 4, 1, 1)
    latent = z.view(1, 4, *stage_a_grid(*sides, z.shape[1] // 2)) + mean
    small = stage_a.decode(latent.to(device, next(stage_a.parameters()).dtype)).float().cpu()
    return to_pixels(torch.nn.functional.interpolate(small, size=sides, mode="bicubic", align_corners=False))


def stage_a_grid(height: int, width: int, uses: int) -> tuple[int, int]:
    from ..baselines import grid

    return grid(height // 4, width // 4, uses // 2)


def stage_a(model: str, device: str) -> System:
    send, receive = partial(send_stage_a, model=model, device=device), partial(receive_stage_a, model=model, device=device)
    return System("Stage A's latent of a shrunk picture, sent analog", send, receive, version=partial(model_version, model))


# Codecs over a digital link


def send_codec(codec: str, link: str, pixels: np.ndarray, uses: int, snr_db: float) -> tuple[torch.Tensor | bytes, Side]:
    from ..phy import digital

    mcs = digital.choose(uses, snr_db if link == "ldpc" else FIXED_DB) if link in ("ldpc", "fixed") else None
    budget = ideal_bits(link, uses, snr_db) // 8 if mcs is None else digital.plan(uses, mcs).payload_bytes
    found = codecs.fit(codec, pixels, budget)
    payload, scale = found or (b"", 0)
    side = {**sides(pixels), **mean_colour(pixels), "size": (len(payload), 16), "scale": (scale, 2)}
    if link == "ldpc":
        side["scheme"] = (digital.TABLE.index(mcs) if mcs else 0, 5)
    if link in ("capacity", "finite"):
        return payload, side
    return digital.encode([payload], uses, mcs) if payload else torch.zeros(1, 0, dtype=torch.complex64), side


def receive_codec(codec: str, link: str, received: Received | bytes, side: Side) -> np.ndarray | None:
    from ..phy import digital

    size, scale = side["size"][0], side["scale"][0]
    payload = received
    if isinstance(received, Received):
        mcs = digital.TABLE[side["scheme"][0]] if link == "ldpc" else digital.choose(received.y.shape[1], FIXED_DB)
        payload = digital.decode(received, mcs, [size])[0]
    return payload and codecs.show(codec, payload, scale, side["height"][0], side["width"][0])


def ideal_bits(link: str, uses: int, snr_db: float) -> int:
    """Most bits of a payload on an ideal link; 0 on a real one, for which no scheme was found."""
    bits = {"capacity": lambda: uses * capacity(snr_db), "finite": lambda: normal_approximation(uses, snr_db, FINITE_LOSS)}
    return math.floor(bits[link]()) if link in bits else 0


def sides(pixels: np.ndarray) -> Side:
    return {"height": (pixels.shape[0], 16), "width": (pixels.shape[1], 16)}


def mean_colour(pixels: np.ndarray) -> Side:
    """24 bits: what is shown of a lost picture."""
    mean = pixels.reshape(-1, 3).mean(axis=0).round().astype(int).tolist()
    return {name: (value, 8) for name, value in zip(("red", "green", "blue"), mean)}


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
    version = lambda: codecs.CODECS[codec].version() + f", {link_version()}" * real  # noqa: E731
    return System(f"{NAMES[codec]} over {LINKS[link]}", send, receive, "channel" if real else link, real, needs, version)


@functools.cache
def link_version() -> str:
    """Of the digital link: the hash of its error curves, which decide the scheme, and the version of its decoder."""
    from ..phy import digital

    sionna = importlib.metadata.version("sionna-no-rt") if importlib.util.find_spec("sionna") else "missing"
    return f"link {hashlib.sha256(digital.CURVES.read_bytes()).hexdigest()[:8]}, sionna {sionna}"


MODELS = {  # those with networks, of any model: "semcast@MODEL_NAME_OR_DIR"
    "semcast": partial(semcast, steps=None),
    "semcast-2steps": partial(semcast, steps=2),
    "semcast-1step": partial(semcast, steps=1),
    "semcast-digital": semcast_digital,
    "stage-a": stage_a,
}
SYSTEMS = {
    **{name: make("small", "cpu") for name, make in MODELS.items()},
    "downscale": System("the picture shrunk until its samples fit, sent analog", send_downscale, receive_downscale),
    "deepjscc": System(
        f"DeepJSCC, trained on AWGN of 1 to 20 dB for the ratios {', '.join(deepjscc.RATIOS)}",
        deepjscc.send,
        deepjscc.receive,
        version=deepjscc.version,
        ready=deepjscc.check_weights,
    ),
    **{f"{codec}-{link}": _codec(codec, link) for codec in NAMES for link in LINKS},
}


@functools.cache
def find_system(name: str, device: str = "cpu") -> System:
    """By its name; "semcast@DIR" is semcast with another model, "module:NAME" a system of the user's."""
    base, _, model = name.partition("@")
    if base in MODELS:
        return MODELS[base](model or "small", device)
    if name in SYSTEMS:
        return SYSTEMS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise InputError(f"no system is called {name!r}; `semcast bench --list` names them")
    try:
        system = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot load the system {name!r}: {error}") from None
    if not isinstance(system, System):
        raise InputError(f"{name!r} is a {type(system).__name__}, not a semcast.bench.systems.System")
    return system


def missing(name: str) -> list[str]:
    """Packages that a system needs and that are not installed."""
    return [package for package in find_system(name).needs if importlib.util.find_spec(package) is None]


def family(name: str) -> str:
    """Systems of one family share encodings: they run in the same place, one after the other."""
    return name.split("@")[0].split("-")[0]
