"""One unit of work: sends a picture with the systems of one family, at every SNR and draw, and measures what arrives.

Only this module applies the channel, counts uses and side information, and checks the power.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..channels.base import Received
from ..channels.catalogue import find_channel
from ..channels.combining import combine
from ..errors import InputError
from ..randomness import stream
from . import measures
from .base import System
from .coded import FINITE_LOSS, ideal_bits
from .ends import Ends
from .systems import find_system
from .versions import versions

PROTOCOL = 1  # version of the section "The bench" in PROTOCOL.md
SIDE_BITS_MAX = 1024  # a system that needs more must send it
POWER_TOLERANCE = 1e-3
NOT_READ = np.zeros((0, 0, 3), np.uint8)
COPY_STRIDE = 1000  # copy i of draw d uses the seed of draw d + 1000 i
MEASURED_NOISE = ("awgn", "rayleigh", "rayleigh-fast", "rician")  # channels on which y - h x is the noise


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all rows of a run have in common."""

    channel: str = "awgn"
    options: tuple[tuple[str, object], ...] = ()  # all options of the channel
    uses: str = "same"
    copies: int = 1  # receptions of one transmission, which the receiver combines; each uses the channel
    snr_error_db: float = 0.0  # both ends believe in an SNR that is too high by this
    headline: tuple[float, ...] = (1, 10, 20)  # SNRs at which draw 0 has the slow metrics and pictures are kept
    lpips: Path | None = None
    segmenter: Path | None = None
    device: str = "cpu"
    size: int | None = None


class Unit(NamedTuple):
    """Work for one process: one picture and the systems of one family."""

    name: str
    sha256: str
    uses: int
    jobs: tuple[tuple[str, float, tuple[int, ...]], ...]  # system, snr_db, draws
    setting: Setting
    shown: bool  # keep pictures
    index: int  # the picture's index in the data
    pixels: np.ndarray = NOT_READ  # uint8 [H, W, 3]; read when the unit is handed out
    truth: np.ndarray | None = None  # uint8 [H, W], the classes of its pixels, if there are labels
    megapixels: float = 0.0


Measured = tuple[dict, np.ndarray | None, dict[str, np.ndarray]]  # row, picture to keep, features by SHA-256


def measure_unit(unit: Unit, ends: Ends) -> Iterator[Measured]:
    """The rows of a unit, each with the received picture if it is to be kept, and features of original and received."""
    setting, measured = unit.setting, {}
    for name, snr_db, draws in unit.jobs:
        system = find_system(name)
        believed_db = snr_db + setting.snr_error_db
        uses, told = request(system, unit.pixels, unit.uses, unit.truth, setting)
        sent, side, send_ms = ends.send(name, unit.pixels, uses, believed_db, **told)
        facts = check_sent(name, system, sent, side, uses, believed_db)
        for draw in draws:
            seed, headline = draw_seed(unit.sha256, draw), is_headline(setting, snr_db, draw)
            reference = measures.reference(unit.pixels, setting.lpips, headline, setting.segmenter, unit.truth)
            received, noise = propagate(system, sent, snr_db, unit.sha256, draw, setting)
            image, receive_ms = (None, None) if received is None else ends.receive(name, received, side)
            lost = image is None
            image = check_image(name, unit.pixels, flat_picture(name, unit.pixels, side) if image is None else image)
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            if (digest, headline) not in measured:  # a payload that arrives gives the same picture in every draw
                measured[digest, headline] = measures.measure(reference, image, setting.lpips)
            quality, features = measured[digest, headline]
            row = {
                "protocol": PROTOCOL,
                "system": name,
                "system_version": system.version(),
                "image": unit.name,
                "image_sha256": unit.sha256,
                "height": unit.pixels.shape[0],
                "width": unit.pixels.shape[1],
                "size": setting.size,
                "channel": setting.channel,
                "channel_options": dict(setting.options),
                "snr_db": snr_db,
                "draw": draw,
                "seed": seed,
                "uses_rule": setting.uses,
                "copies": setting.copies,
                "snr_error_db": setting.snr_error_db,
                "uses": unit.uses,
                **facts,
                **noise,
                "send_ms": round(send_ms, 2),
                "receive_ms": receive_ms and round(receive_ms, 2),
                "lost": lost,
                **quality,
                "received_sha256": digest,
                "headline": headline,
                "versions": versions(setting.lpips, setting.segmenter),
            }
            seen = {} if features is None else {unit.sha256: reference["seen"].features, digest: features}
            yield row, image if unit.shown and headline else None, seen


def is_headline(setting: Setting, snr_db: float, draw: int) -> bool:
    """Whether a row has the slow metrics: at the headline SNRs, of the first draw."""
    return snr_db in setting.headline and draw == 0


def request(
    system: System, pixels: np.ndarray, uses: int, truth: np.ndarray | None, setting: Setting
) -> tuple[int, dict[str, Any]]:
    """The uses that a system takes of a picture that gets `uses`, and what its sender is told beside the picture."""
    uses = system.own_uses(*pixels.shape[:2]) if system.own_uses else uses
    return uses, {system.told: {"truth": truth, "segmenter": setting.segmenter}[system.told]} if system.told else {}


def check_sent(name: str, system: System, sent: np.ndarray | bytes, side: dict, uses: int, snr_db: float) -> dict:
    """Count and check what a sender hands over. Returns fields of the row."""
    wrong = lambda text: InputError(f"the sender of {name!r} {text}")
    for field, (value, bits) in side.items():
        if not (isinstance(value, int) and isinstance(bits, int) and 0 <= value < 2 ** min(bits, SIDE_BITS_MAX)):
            raise wrong(f"has side information {field} = {value!r}, which is no whole number of {bits} bits")
    side_bits = sum(bits for _, bits in side.values())
    if side_bits > SIDE_BITS_MAX:
        raise wrong(f"needs {side_bits} bits of side information; what is above {SIDE_BITS_MAX} has to be sent")
    if isinstance(sent, bytes) != (system.link != "channel"):
        raise wrong(f"gave {'bytes' if isinstance(sent, bytes) else 'symbols'}, which its link does not carry")
    facts = {"side_bits": side_bits, "side": side, "payload_bits": None, "power": None}
    if isinstance(sent, bytes):
        most = ideal_bits(system.link, uses, snr_db)
        if 8 * len(sent) > most:
            raise wrong(f"has a payload of {8 * len(sent)} bits; {uses} uses at {snr_db:g} dB carry {most}")
        return {"payload_uses": uses, **facts, "payload_bits": 8 * len(sent)}
    k = sent.shape[1]
    if k > uses:
        raise wrong(f"used the channel {k} times; {uses} are allowed")
    if k == 0:
        return {"payload_uses": 0, **facts}
    power = np.mean(np.abs(sent).astype(np.float64) ** 2).item()
    spread = 5 * math.sqrt(0.4 / k) if system.digital else 0.0  # 256-QAM: Var|x|^2 = 0.4
    if not abs(power - 1) <= POWER_TOLERANCE + spread:  # also refuses NaN
        raise wrong(f"sent with power {power:.5g} instead of 1")
    return {"payload_uses": k, **facts, "power": power}


def propagate(
    system: System, sent: np.ndarray | bytes, snr_db: float, sha256: str, draw: int, setting: Setting
) -> tuple[Received | bytes | None, dict]:
    """Apply the channel. Returns what arrives, or None for nothing, and fields of the row."""
    noise = {"channel_uses": 0, "es_n0_db": None}
    seeds = [draw_seed(sha256, draw + COPY_STRIDE * copy) for copy in range(setting.copies)]
    if isinstance(sent, bytes):
        lucky = system.link == "capacity" or stream(seeds[0], "loss").random() >= FINITE_LOSS
        return (sent if sent and lucky else None), noise | {"channel_uses": None}
    if not sent.shape[1]:
        return None, noise
    channel, options = find_channel(setting.channel), dict(setting.options)
    if setting.snr_error_db:
        options["snr_mismatch_db"] = setting.snr_error_db
    receptions = [channel(sent, snr_db, [stream(seed, "channel")], **options) for seed in seeds]
    if setting.channel in MEASURED_NOISE:
        n = receptions[0].y - receptions[0].h * sent
        noise["es_n0_db"] = 10 * math.log10(
            np.sum(np.abs(sent).astype(np.float64) ** 2) / np.sum(np.abs(n).astype(np.float64) ** 2)
        )
    return combine(receptions), noise | {"channel_uses": setting.copies * channel.uses(sent.shape[1], options)}


def flat_picture(name: str, pixels: np.ndarray, side: dict) -> np.ndarray:
    """The picture shown in place of a lost one: its mean colour, which came as side information."""
    if not {"red", "green", "blue"} <= side.keys():
        raise InputError(
            f"the receiver of {name!r} lost the picture, but its side information has no mean colour (red, green, blue)"
        )
    return np.broadcast_to(np.array([side[c][0] for c in ("red", "green", "blue")], np.uint8), pixels.shape).copy()


def check_image(name: str, sent: np.ndarray, image: np.ndarray) -> np.ndarray:
    if image.shape != sent.shape:
        raise InputError(f"the receiver of {name!r} returned {list(image.shape)} instead of {list(sent.shape)}")
    return image


def draw_seed(sha256: str, draw: int) -> int:
    """The channel's seed for a picture and draw. It is the same for all systems and SNRs, and no system is told it."""
    return int.from_bytes(hashlib.sha256(f"{sha256} {draw}".encode()).digest()[:4], "big")
