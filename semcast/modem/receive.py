"""From a recording to all transmissions in it: which preamble, postamble and header belong together."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import code
from .detect import Burst, find_bursts
from .hearing import Heard, end_of, front_of, header_bits, hear
from .layout import Layout, lay_out, lay_out_between
from .profiles import PREAMBLE, PREFIX, SYMBOL, Profile
from .reception import Reception, payload, report
from .transmit import SYMBOLS_MAX, SYMBOLS_MIN

SAME_HZ = 15.0  # by which a transmission's offset may seem to change from its preamble to its postamble
PARTNERS = 3  # postambles that are tried for one preamble
KNOWN_MIN = 0.2  # score of a burst for which a header is taken that the caller knows
SURE = 0.35  # score of a burst that is reported although no header can be read; speech and music reach 0.2

Count = Callable[[bytes], int | None]


class Found(NamedTuple):
    """A transmission, or a burst that may be one's."""

    reception: Reception
    span: range  # samples of the recording that it takes up
    certainty: float  # the burst's score, plus 2 with a header of its own, plus 1 with the caller's


class Search(NamedTuple):
    """What is looked for, and where."""

    samples: np.ndarray
    n_symbols: Count
    header: bytes | None  # that the caller knows

    def read(self, *parts: np.ndarray) -> tuple[bytes, int] | None:
        """A header from the soft bits of its parts, and how many symbols of payload follow it; None if it is damaged."""
        data = code.decode(np.sum(parts, axis=0))
        count = self.n_symbols(data)
        return (data, count) if count and SYMBOLS_MIN <= count <= SYMBOLS_MAX else None

    def known(self) -> tuple[bytes, int] | None:
        """The header that the caller knows."""
        count = None if self.header is None else self.n_symbols(self.header)
        return None if self.header is None or count is None else (self.header, count)


def find(samples: np.ndarray, n_symbols: Count, header: bytes | None = None) -> list[Reception]:
    """All transmissions in a recording, in the order of time.

    Args:
        samples: float [n] at 8 kHz; of a memory map only what is needed at a time is read.
        n_symbols: says how many payload symbols follow a header, or None if the header is damaged.
        header: one that is known from elsewhere, for transmissions whose own cannot be read.
    """
    search, found = Search(samples, n_symbols, header), []
    bursts = find_bursts(samples)
    for i, burst in enumerate(bursts):
        if burst.kind == "pre" and not within(burst, found):
            found += hear_from_front(search, burst, bursts[i + 1 :])
    for burst in bursts:
        if burst.kind == "post" and not within(burst, found) and not ends_one(burst, found):
            found += hear_from_end(search, burst)
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: -one.certainty):
        if all(one.span.start >= other.span.stop or other.span.start >= one.span.stop for other in kept):
            kept.append(one)
    return [one.reception for one in sorted(kept, key=lambda one: one.span.start)]


def hear_from_front(search: Search, burst: Burst, later: list[Burst]) -> list[Found]:
    """The transmission that a preamble begins: by the front of its header, or with a postamble by both parts."""
    profile = burst.profile
    front = front_of(search.samples, Layout(profile, profile.data_per_pilot), burst)
    if read := search.read(header_bits(front, 0)):
        layout = lay_out(profile, read[1])
        return [take(search, burst, layout, hear(search.samples, layout, burst), read, "front")]
    for layout in partners(burst, later):
        heard = hear(search.samples, layout, burst)
        bits = [header_bits(heard.rows(rows), part) for part, rows in enumerate(layout.header_parts)]
        for parts, origin in ((bits, "both"), (bits[1:], "end")):
            read = search.read(*parts)
            if read and lay_out(profile, read[1]) == layout:
                return [take(search, burst, layout, heard, read, origin)]
        known = search.known()
        if known and lay_out(profile, known[1]) == layout:
            return [take(search, burst, layout, heard, known, "caller")]
    return without_header(search, burst, front)


def hear_from_end(search: Search, burst: Burst) -> list[Found]:
    """The transmission that a postamble ends, whose preamble was not heard.

    How many symbols follow its last pilot is unknown, so every number is tried.
    """
    profile, every, heard = burst.profile, burst.profile.data_per_pilot, None
    for symbols in range(every, 2 * every):
        guess = Layout(profile, symbols)
        heard = end_of(search.samples, guess, burst)
        read = search.read(header_bits(heard, 1))
        if read and ((layout := lay_out(profile, read[1])).data - guess.data) % every == 0:
            return [take(search, burst, layout, hear(search.samples, layout, burst), read, "end")]
    assert heard is not None
    return without_header(search, burst, heard)


def without_header(search: Search, burst: Burst, heard: Heard) -> list[Found]:
    """A burst beside which no header can be read: with the caller's header, or only its being there is reported."""
    known = search.known()
    if known and burst.score >= KNOWN_MIN:
        layout = lay_out(burst.profile, known[1])
        return [take(search, burst, layout, hear(search.samples, layout, burst), known, "caller")]
    if burst.score < SURE:
        return []
    start = round(2 * burst.at)
    span = range(start, start + PREAMBLE)
    empty = np.zeros(0, np.complex64)
    measured = report(search.samples, heard, span, "")
    reception = Reception(None, burst.profile.name, start, empty, empty, np.zeros(0, np.float32), measured)
    return [Found(reception, span, burst.score)]


def take(
    search: Search, burst: Burst, layout: Layout, heard: Heard, read: tuple[bytes, int], header_from: str
) -> Found:
    """The reception of a transmission with this header and number of symbols."""
    start = round(2 * heard.tuning.at)
    span = range(start, start + layout.length)
    measured = report(search.samples, heard, span, header_from)
    reception = Reception(read[0], layout.profile.name, start, *payload(heard, layout, read[1]), measured)
    return Found(reception, span, burst.score + (1 if header_from == "caller" else 2))


def partners(burst: Burst, later: list[Burst]) -> list[Layout]:
    """The layouts that the next postambles would make of a transmission that a preamble begins."""
    ends = [b for b in later if b.kind == "post" and b.profile == burst.profile]
    ends = [b for b in ends if abs(b.offset_hz - burst.offset_hz) < SAME_HZ][:PARTNERS]
    return [layout for b in ends if (layout := between(burst.profile, burst.at, b.at))]


def between(profile: Profile, pre_at: float, post_at: float) -> Layout | None:
    """The layout that has its preamble and its postamble at these places; None if there is none."""
    ticks = 2 * (post_at - pre_at) - PREAMBLE
    symbols = round(ticks / SYMBOL)
    return lay_out_between(profile, symbols) if abs(ticks - symbols * SYMBOL) < 2 * PREFIX else None


def within(burst: Burst, found: list[Found]) -> bool:
    """Whether a burst belongs to a transmission whose header was read."""
    return any(one.certainty >= 2 and round(2 * burst.at) + PREFIX in one.span for one in found)


def ends_one(burst: Burst, found: list[Found]) -> bool:
    """Whether a postamble may end a transmission of which only the preamble was made out."""
    return any(
        one.certainty < 1
        and one.reception.profile == burst.profile.name
        and abs(one.reception.report.offset_hz - burst.offset_hz) < SAME_HZ
        and between(burst.profile, one.span.start / 2, burst.at)
        for one in found
    )
