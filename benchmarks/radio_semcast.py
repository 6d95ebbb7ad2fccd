"""semcast by radio, for radio.py: the base again and again, or once with rungs of the ladder above it."""

import functools
from collections import Counter

import numpy as np

from radio_signals import LEAD_S, LIMITS_S, PROFILE, SIDE, Sent, peak_power
from semcast.cascade.engine import load_model
from semcast.channels.combining import combine
from semcast.images import to_image, to_pixels
from semcast.link import Link
from semcast.modem import side
from semcast.modem.layout import symbols_within
from semcast.modem.profiles import RATE_HZ
from semcast.modem.receive import find
from semcast.modem.transmit import SYMBOLS_MAX, modulate
from semcast.modulation.ladder import rungs_within
from semcast.modulation.modems import on_air
from semcast.transmitter import top_rung


@functools.cache
def semcast_link() -> Link:
    return Link(load_model("small"))


@functools.lru_cache(maxsize=3)
def one_transmission(picture: bytes, limit: int | None = None) -> tuple[np.ndarray, int]:
    """Samples, and symbols of payload, of one transmission of a picture [SIDE, SIDE, 3]: of the whole base, or of all
    rungs of the ladder that fit into LIMITS_S[limit]."""
    link, image = semcast_link(), to_image(np.frombuffer(picture, np.uint8).reshape(SIDE, SIDE, 3))
    sent = link.send(image)
    if limit:
        uses = min(symbols_within(PROFILE, LIMITS_S[limit] - 2 * LEAD_S), SYMBOLS_MAX)
        sent = link.send(image, rungs=rungs_within(uses, sent.header, top=top_rung(link.engine.config)))
    return modulate(on_air(sent)[0], side.to_air(sent.header), PROFILE, LEAD_S), sent.header.channel_uses


def send_semcast(limit: int, pixels: np.ndarray, pnr_db: float = 0.0, channel: str = "") -> Sent:
    """As many transmissions as fit into LIMITS_S[limit]."""
    burst, uses = one_transmission(pixels.tobytes())
    copies = int(LIMITS_S[limit] * RATE_HZ / len(burst))
    samples = np.tile(burst, copies)
    return Sent(samples, peak_power(burst), len(samples) / RATE_HZ, copies, f"{copies} x {uses} symbols")


def send_more(limit: int, pixels: np.ndarray, pnr_db: float = 0.0, channel: str = "") -> Sent:
    """The base and as many rungs above it as fit into LIMITS_S[limit]."""
    samples, uses = one_transmission(pixels.tobytes(), limit)
    return Sent(samples, peak_power(samples), len(samples) / RATE_HZ, 1, f"{uses} symbols")


def receive_semcast(samples: np.ndarray, copies: int) -> np.ndarray | None:
    """Search a recording for transmissions of one picture; those whose header is damaged are used once another's is read."""
    found = find(samples, side.n_symbols)
    headers = Counter(one.header for one in found if one.header)
    if not headers:
        return None
    header = headers.most_common(1)[0][0]
    if headers[header] < copies:
        found = find(samples, side.n_symbols, header)
    receptions = [one.received for one in found if one.header == header and np.isfinite(one.noise_var).any()]
    known = side.from_air(header)
    assert known is not None
    return to_pixels(semcast_link().receive(combine(receptions), known))
