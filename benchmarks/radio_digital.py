"""The digital rival of radio.py: AVIF, 5G LDPC and QAM as the payload of semcast's modem."""

import binascii
import functools
import math
from typing import NamedTuple

import numpy as np

from radio_signals import LEAD_S, LIMITS_S, PROFILE, Sent, crest_db, peak_power
from semcast.bench import codecs
from semcast.channels.base import Received
from semcast.modem.layout import symbols_within
from semcast.modem.profiles import HEADER_BYTES, RATE_HZ, SPACING_HZ
from semcast.modem.receive import find
from semcast.modem.reception import REFERENCE_HZ
from semcast.modem.transmit import SELF_NOISE_DB, SYMBOLS_MAX, SYMBOLS_MIN, modulate
from semcast.modulation import ldpc, mcs
from semcast.randomness import seeded

CODEC = "avif"
# How much of the expected Es/N0 the digital rival does not count on. Without fading the modem takes 0.6 dB of it. On
# watterson-poor, 9 of 10 transmissions of 4 s, and of 32 s, have an SNR of equal capacity no more than 3.4 dB below it
# (at 0 dB 2.7 and 2.3); QAM at a fixed rate needs some more. For 1 s the margin is a guess.
MARGINS_DB = {"awgn": dict.fromkeys((1, 4, 36), 1.0), "watterson-poor": {1: 6.0, 4: 4.5, 36: 3.5}}


class Packet(NamedTuple):
    """What the header of the digital rival says: 12 of the modem's 13 bytes."""

    uses: int
    scheme: int  # row of mcs.TABLE
    size: int  # bytes of payload
    scale: int  # of the codec

    def to_air(self) -> bytes:
        data = b"\0" * (HEADER_BYTES - 9) + self.uses.to_bytes(3, "big") + bytes([self.scheme << 2 | self.scale])
        data += self.size.to_bytes(3, "big")
        return data + binascii.crc_hqx(data, 0).to_bytes(2, "big")

    @classmethod
    def from_air(cls, data: bytes) -> "Packet | None":
        if binascii.crc_hqx(data[:-2], 0).to_bytes(2, "big") != data[-2:] or len(data) != HEADER_BYTES:
            return None
        uses, size = (int.from_bytes(data[at : at + 3], "big") for at in (-9, -5))
        fine = SYMBOLS_MIN <= uses <= SYMBOLS_MAX and data[-6] >> 2 < len(mcs.TABLE)
        return cls(uses, data[-6] >> 2, size, data[-6] & 3) if fine else None


def n_symbols(header: bytes) -> int | None:
    packet = Packet.from_air(header)
    return packet.uses if packet else None


@functools.cache
def usual_crest_db(uses: int) -> float:
    """`crest_db` of a signal of QPSK symbols."""
    x = np.exp(0.5j * np.pi * (seeded("crest").integers(0, 4, uses) + 0.5))
    samples = modulate(x, bytes(HEADER_BYTES), PROFILE, LEAD_S)
    return crest_db(Sent(samples, peak_power(samples), 0.0, None))


def expected_db(pnr_db: float, crest_db: float) -> float:
    """Es/N0 of the payload with the transmitter's distortion, before the modem's losses and fading."""
    esn0_db = pnr_db - crest_db + 10 * math.log10(REFERENCE_HZ / (PROFILE.carriers * SPACING_HZ))
    return -10 * math.log10(10 ** (-esn0_db / 10) + 10 ** (-SELF_NOISE_DB / 10))


def send_digital(limit: int, pixels: np.ndarray, pnr_db: float, channel: str) -> Sent:
    """As many bytes as arrive within LIMITS_S[limit] at the expected SNR."""
    uses = min(symbols_within(PROFILE, LIMITS_S[limit] - 2 * LEAD_S), SYMBOLS_MAX)
    counted_db = expected_db(pnr_db, usual_crest_db(uses)) - MARGINS_DB[channel][limit]
    scheme = mcs.choose(uses, counted_db) or mcs.TABLE[0]
    payload, scale = codecs.fit(CODEC, pixels, mcs.plan(uses, scheme).payload_bytes) or (b"", 0)  # none is so small
    x = ldpc.encode([payload], uses, scheme)[0][interleaver(uses)]
    packet = Packet(uses, mcs.TABLE.index(scheme), len(payload), scale)
    samples = modulate(x / np.sqrt(np.mean(np.abs(x) ** 2)), packet.to_air(), PROFILE, LEAD_S)
    about = f"{scheme}, {len(payload)} bytes"
    return Sent(samples, peak_power(samples), len(samples) / RATE_HZ, pixels.shape[:2], about)


def receive_digital(samples: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    for one in find(samples, n_symbols):
        packet = Packet.from_air(one.header) if one.header else None
        if packet is None:
            continue
        back = np.argsort(interleaver(packet.uses))
        received = Received(*(part[:, back] for part in one.received))
        payload = ldpc.decode(received, mcs.TABLE[packet.scheme], [packet.size])[0]
        if payload:
            return codecs.show(CODEC, payload, packet.scale, *size)
    return None


@functools.cache
def interleaver(uses: int) -> np.ndarray:
    return seeded("radio interleaver").permutation(uses)
