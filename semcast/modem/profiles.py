"""The two waveforms: which carriers they use, their known symbols, and the figures they share.

RATE_HZ          8000 samples a second
useful symbol    160 samples, 20 ms, so carriers are 50 Hz apart
cyclic prefix    32 samples, 4 ms: paths may arrive so much later than the first
preamble         a prefix of 64 samples and 4 times the known symbol, 704 samples, 88 ms; the postamble is alike,
                 with the known symbol's phases in reverse order of the carriers, which tells the two apart
pilots           the known symbol after every 5 or 6 symbols of data
"""

from typing import NamedTuple

import numpy as np

RATE_HZ = 8000
USEFUL = 160  # samples of a symbol without its prefix
PREFIX = 32
SYMBOL = PREFIX + USEFUL
SPACING_HZ = RATE_HZ // USEFUL
REPEATS = 4  # of the known symbol in a preamble
PREAMBLE_PREFIX = 64
PREAMBLE = PREAMBLE_PREFIX + REPEATS * USEFUL
BOOST_DB = 1.5  # preamble and pilots over the payload: with their low crest they still fit under the clip
HEADER_BYTES = 13


class Profile(NamedTuple):
    """One waveform."""

    name: str
    first_carrier: int  # in units of 50 Hz
    phases: tuple[int, ...]  # of the known symbol's carriers, in 1/64 turns
    data_per_pilot: int
    header_symbols: int  # OFDM symbols of each of the two parts of the header

    @property
    def carriers(self) -> int:
        return len(self.phases)

    @property
    def bins(self) -> np.ndarray:
        """Carrier numbers [C]: the frequency over 50 Hz."""
        return self.first_carrier + np.arange(self.carriers)

    def known(self, kind: str) -> np.ndarray:
        """The known symbol [C] complex, unit power: of the "pre"amble and the pilots, or of the "post"amble."""
        turns = np.array(self.phases if kind == "pre" else self.phases[::-1]) / 64
        return np.exp(2j * np.pi * turns)


# Phases: from 60 random starts, clipped in turn in time and normalised in frequency. Crest (peak over mean power of the
# envelope) 1.4 and 1.6 dB. Unlike Newman's quadratic phases, a shift by 50 Hz does not look like a delay: the
# correlation of known symbols shifted by up to 200 Hz is at most 0.38, of pre- and postamble 0.46 (narrow: 0.56).
_FAST = (15, 16, 14, 36, 36, 49, 54, 62, 62, 36, 33, 9, 39, 8, 10, 52, 32, 10, 1, 59, 30, 37, 4)
_FAST += (26, 52, 23, 51, 48, 50, 38, 40, 35, 62, 36, 61, 35, 39, 57, 27, 21, 46, 4, 61, 33, 52)
_NARROW = (36, 29, 0, 54, 26, 0, 62, 24, 36, 31, 33, 39, 31, 36, 14, 21, 44, 58, 39, 9, 29, 7, 43, 61)

PROFILES = {
    "fast": Profile("fast", 9, _FAST, 5, 3),  # 45 carriers, 450 to 2650 Hz
    "narrow": Profile("narrow", 19, _NARROW, 6, 5),  # 24 carriers, 950 to 2100 Hz
}
