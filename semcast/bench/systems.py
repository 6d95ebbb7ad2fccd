"""The systems that the bench measures, by name.

What one is stands in `base.py`. To measure your own, give `--systems package.module:NAME` with NAME a `System`.
"""

import functools
from functools import partial

import numpy as np

from ..channels.base import Received
from ..errors import InputError, load_object
from ..errors import missing as missing_packages
from . import coded, deepjscc, downscale, linear, ours, stage_a
from .base import NOTHING, Side, System, mean_colour, sides
from .peers.systems import PEERS


def send_nothing(pixels: np.ndarray, uses: int, snr_db: float) -> tuple[np.ndarray, Side]:
    return NOTHING, sides(pixels) | mean_colour(pixels)


def receive_nothing(received: Received, side: Side) -> None:
    return None


MODELS = {  # systems that run with any model: "semcast@MODEL_NAME_OR_DIR"
    "semcast": ours.semcast,
    "semcast-ladder": ours.semcast_ladder,
    "semcast-mixed": ours.semcast_mixed,
    "semcast-10steps": partial(ours.semcast, steps=10),
    "semcast-4steps": partial(ours.semcast, steps=4),
    "semcast-2steps": partial(ours.semcast, steps=2),
    "semcast-1step": partial(ours.semcast, steps=1),
    "semcast-mean-noise": partial(ours.semcast_told_less, told="mean"),
    "semcast-one-noise": partial(ours.semcast_told_less, told="one"),
    "semcast-digital": ours.semcast_digital,
    "semcast-digital-fixed": partial(ours.semcast_digital, fixed_db=coded.FIXED_DB),
    "stage-a": stage_a.stage_a,
}
SYSTEMS = {
    **{name: make("small", "cpu") for name, make in MODELS.items()},
    "mean-colour": System("nothing is sent: what a lost picture is worth", send_nothing, receive_nothing),
    "downscale": System("the picture shrunk until its samples fit, sent analog", downscale.send, downscale.receive),
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
    **{f"{codec}-{link}": coded.codec_system(codec, link) for codec in coded.NAMES for link in coded.LINKS},
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
