"""Where everything lies in a transmission: which symbol in which place, which place at which sample.

    preamble | header, first part | payload | header, second part | postamble

Header and payload are one stream of OFDM symbols; after every fifth or sixth comes a pilot, but none at the end, where the
postamble serves as one. Samples are counted at 8 kHz from the first of the preamble.
"""

from typing import NamedTuple

import numpy as np

from ..channels.erasure import interleaver
from .profiles import PREAMBLE, RATE_HZ, SYMBOL, Profile

BLOCK_SYMBOLS = 35  # OFDM symbols, about a second, within which the payload is interleaved


class Layout(NamedTuple):
    """Of a transmission with `payload` OFDM symbols of payload."""

    profile: Profile
    payload: int

    @property
    def data(self) -> int:
        """OFDM symbols of header and payload."""
        return self.payload + 2 * self.profile.header_symbols

    @property
    def pilots(self) -> int:
        return -(-self.data // self.profile.data_per_pilot) - 1

    @property
    def symbols(self) -> int:
        return self.data + self.pilots

    @property
    def data_at(self) -> np.ndarray:
        """First sample of each symbol of header and payload, its prefix included, int [data]."""
        index = np.arange(self.data)
        return PREAMBLE + SYMBOL * (index + index // self.profile.data_per_pilot)

    @property
    def pilots_at(self) -> np.ndarray:
        every = self.profile.data_per_pilot
        return PREAMBLE + SYMBOL * (every + (every + 1) * np.arange(self.pilots))

    @property
    def postamble_at(self) -> int:
        return PREAMBLE + SYMBOL * self.symbols

    @property
    def length(self) -> int:
        return self.postamble_at + PREAMBLE

    @property
    def header_parts(self) -> tuple[slice, slice]:
        """Which symbols of the stream are the two parts of the header."""
        h = self.profile.header_symbols
        return slice(0, h), slice(self.data - h, self.data)


def lay_out(profile: Profile, count: int) -> Layout:
    """For a payload of `count` complex symbols."""
    return Layout(profile, -(-count // profile.carriers))


def lay_out_between(profile: Profile, symbols: int) -> Layout | None:
    """The layout with so many OFDM symbols, pilots included, between preamble and postamble; None if there is none."""
    data = symbols - symbols // (profile.data_per_pilot + 1)
    layout = Layout(profile, data - 2 * profile.header_symbols)
    return layout if layout.payload > 0 and layout.symbols == symbols else None


def duration_s(profile: Profile, count: int) -> float:
    """How long a transmission of `count` symbols takes."""
    return lay_out(profile, count).length / RATE_HZ


def symbols_within(profile: Profile, seconds: float) -> int:
    """How many symbols of payload a transmission carries that takes no more than so many seconds; 0 if none."""
    symbols = max((round(seconds * RATE_HZ) - 2 * PREAMBLE) // SYMBOL, 0)
    data = symbols - symbols // (profile.data_per_pilot + 1)
    return max(data - 2 * profile.header_symbols, 0) * profile.carriers


def pilot_signs(count: int) -> np.ndarray:
    """+1 or -1 [count], Rudin and Shapiro's sequence: equal pilots would make lines in the spectrum.

    The last is +1, so that who joined late and does not know its number knows it all the same.
    """
    index = np.arange(count)
    signs = 1.0 - 2.0 * (np.bitwise_count(index & index >> 1) % 2)
    signs[-1:] = 1
    return signs


def places(layout: Layout, count: int) -> np.ndarray:
    """Which of `count` payload symbols lies in each place, int [payload, C].

    Places left over repeat the first symbols, the most important ones. Interleaving stays within blocks of about a
    second, so who hears only the beginning has the beginning of x.
    """
    carriers = layout.profile.carriers
    index = np.arange(layout.payload * carriers) % count
    ends = [carriers * end for end in block_ends(layout)]
    mixed = [index[first:last][interleaver(last - first)] for first, last in zip(ends[:-1], ends[1:])]
    return np.concatenate(mixed).reshape(layout.payload, carriers)


def block_ends(layout: Layout) -> list[int]:
    """Symbols of the payload at which the blocks of the interleaver begin and end, [blocks + 1]."""
    blocks = -(-layout.payload // BLOCK_SYMBOLS)
    return [i * layout.payload // blocks for i in range(blocks + 1)]
