"""A receiver's reply to whoever sent a picture: what arrived, how noisy it is, and what the receiver wishes.

It takes 8 bytes, in a file after `SEMR`: the fields in this order, each with its highest bit first.

| field | bits | what for |
|---|---|---|
| version | 4 | 1 |
| encoder_id, factor | 16 + 7 | as in the header of the transmission |
| transmission_id | 7 | the low bits of the header's, in which all transmissions of a picture agree |
| last_rung | 5 | rungs 1 to this one have arrived, with or without noise; 0: not even the first |
| snr | 7 | of what is known of these rungs, mean: 0 unknown, 1 to 126 -30 to 32.5 dB, 127 more than that |
| wish | 2 | 0 enough, 1 again, 2 more |
| reply_crc | 16 | as in the header |
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError
from ..files import read_bytes, write_bytes
from ..header import (
    FACTOR_MAX,
    FACTOR_MIN,
    FACTOR_UNIT,
    LAYER_RUNGS,
    RUNGS,
    Header,
    pack_bits,
    refuse_impossible,
    unpack_bits,
)

if TYPE_CHECKING:
    from .analog import Estimate

MAGIC = b"SEMR"
VERSION = 1
REPLY_BITS = dict(version=4, encoder_id=16, factor=7, transmission_id=7, last_rung=5, snr=7, wish=2, reply_crc=16)
SIDE_BITS = sum(REPLY_BITS.values())
FILE_BYTES = len(MAGIC) + SIDE_BITS // 8
WISHES = ENOUGH, AGAIN, MORE = "enough", "again", "more"
SNR_MIN_DB, SNR_MAX_DB, SNR_STEP_DB = -30.0, 32.5, 0.5
SNR_UNKNOWN, SNR_ABOVE = 0, 127
# The SNR below which it is better to send rungs again than the next ones, by the last that has arrived: from 1 on, from 7 on,
# from 20 on. Fitted by benchmarks/asking.py to benchmarks/results/asking.json.
AGAIN_BELOW_DB = {1: -2.5, 7: 1.5, 20: 19.5}


class Reply(NamedTuple):
    """What a receiver answers."""

    encoder_id: int
    factor: float
    transmission_id: int  # `Header.short_id`
    last_rung: int  # rungs 1 to this one have arrived; 0: not even the first
    snr_db: float | None  # of the estimates of these rungs; None: unknown, infinite: more than 32.5 dB
    wish: str  # of WISHES


def advise(header: Header, layers: "Sequence[Estimate]", top: int = RUNGS, wish: str | None = None) -> Reply:
    """The reply to what arrived of a picture, from `modems.demodulate`.

    Args:
        header: of any of its transmissions.
        layers: what is known of Z [1, 16, hz, wz] and of the layers above it, from all of its transmissions.
        top: the last rung that the model can send.
        wish: one of WISHES; default: what the rule says (`wish_at`).
    """
    rungs = [noise[:, channel::LAYER_RUNGS] for _, noise in layers for channel in range(LAYER_RUNGS)]  # [1, 2, h, w]
    heard = [*itertools.takewhile(lambda noise: noise.min() < 1, rungs)]
    last, snr_db = len(heard), None
    if heard:
        mean = sum(float(noise.sum()) for noise in heard) / sum(noise.size for noise in heard)
        snr_db = round_snr(10 * math.log10((1 - mean) / mean) if mean > 0 else math.inf)
    return Reply(header.encoder_id, header.factor, header.short_id, last, snr_db, wish or wish_at(last, snr_db, top))


def wish_at(last_rung: int, snr_db: float | None, top: int = RUNGS, again_below_db=AGAIN_BELOW_DB) -> str:
    """Whether the same again or more of the stream makes the better picture, for as many channel uses."""
    if not last_rung or snr_db is None:
        return MORE
    if last_rung >= top:
        return AGAIN if snr_db < math.inf else ENOUGH
    group = max(first for first in again_below_db if first <= last_rung)
    return AGAIN if snr_db < again_below_db[group] else MORE


def round_snr(snr_db: float) -> float:
    """To what a reply can say."""
    snr_db = round(max(snr_db, SNR_MIN_DB) / SNR_STEP_DB) * SNR_STEP_DB if snr_db < math.inf else snr_db
    return snr_db if snr_db <= SNR_MAX_DB else math.inf


def pack(reply: Reply) -> bytes:
    """The 8 bytes of a reply."""
    snr = SNR_UNKNOWN
    if reply.snr_db is not None:
        snr_db = min(round_snr(reply.snr_db), SNR_MAX_DB + SNR_STEP_DB)  # which gives SNR_ABOVE
        snr = 1 + round((snr_db - SNR_MIN_DB) / SNR_STEP_DB)
    fields = reply._asdict() | {
        "version": VERSION,
        "factor": round((reply.factor - FACTOR_MIN) * FACTOR_UNIT),
        "snr": snr,
        "wish": WISHES.index(reply.wish),
    }
    return pack_bits(fields, REPLY_BITS)


def unpack(data: bytes, name: str = "what arrived") -> Reply:
    """Invert `pack`; `name` is for error messages.

    Raises:
        InputError: the 8 bytes are damaged, of another version, or say something impossible.
    """
    fields = unpack_bits(data, REPLY_BITS)
    if fields is None:
        raise InputError(f"{name} is a damaged reply (CRC mismatch); fetch it again")
    last, snr, wish = (fields[field] for field in ("last_rung", "snr", "wish"))
    factor = fields["factor"] / FACTOR_UNIT + FACTOR_MIN
    rules = [
        ("version", fields["version"], fields["version"] == VERSION),
        ("factor", factor, factor <= FACTOR_MAX),
        ("last_rung", last, last <= RUNGS),
        ("snr", snr, last > 0 or snr == SNR_UNKNOWN),
        ("wish", wish, wish < len(WISHES)),
    ]
    refuse_impossible(rules, name, "reply")
    snr_db = {SNR_UNKNOWN: None, SNR_ABOVE: math.inf}.get(snr, SNR_MIN_DB + (snr - 1) * SNR_STEP_DB)
    return Reply(fields["encoder_id"], factor, fields["transmission_id"], last, snr_db, WISHES[wish])


def write_reply(path: Path, reply: Reply) -> None:
    """Write a reply atomically."""
    write_bytes(path, MAGIC + pack(reply))


def read_reply(path: Path) -> Reply:
    """Read the file of a reply.

    Raises:
        InputError: the file cannot be read, is no reply, or holds one that `unpack` refuses.
    """
    data = read_bytes(path, FILE_BYTES, "reply")
    if not data.startswith(MAGIC):
        raise InputError(f"{path} is not a reply of semcast (it does not start with {MAGIC.decode()})")
    return unpack(data[len(MAGIC) :], str(path))
