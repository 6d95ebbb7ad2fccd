"""A range coder: symbols and how likely they are -> words of 32 bits, and back.

Its words are those of constriction's `RangeEncoder` and `Categorical(..., perfect=False)` (Bamler 2022, arXiv 2201.01741),
which tests compare; that package cannot be installed on Linux on ARM without a compiler.

The coder narrows an interval [lower, lower + width) of 64-bit numbers with every symbol, and writes the upper 32 bits as
soon as the width fits into the lower ones. As long as the interval then contains a multiple of 2^64, a carry may still
come: words wait until it is known (`held`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

PRECISION = 24  # bits of a probability
WORD, STATE = 1 << 32, 1 << 64


def cumulative(chances: Iterable[float]) -> list[int]:
    """n weights of any sum -> n + 1 numbers from 0 to 2^24: symbol i has those from the i-th to the next, at least one."""
    sums = list(accumulate(chances, initial=0.0))
    scale = ((1 << PRECISION) - len(sums) + 1) / sums[-1]
    return [int(total * scale) + i for i, total in enumerate(sums[:-1])] + [1 << PRECISION]


class Encoder:
    """Takes symbols with the table (`cumulative`) of each."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.lower, self.width, self.held = 0, STATE - 1, []

    def encode(self, symbols: Iterable[int], table: Sequence[int]) -> None:
        for symbol in symbols:
            part = self.width >> PRECISION
            lower = (self.lower + part * table[symbol]) % STATE
            width = part * (table[symbol + 1] - table[symbol])
            if self.held and lower + width < STATE:
                self.release(carry=lower < self.lower)
            self.lower, self.width = lower, width
            if width < WORD:
                self.shift()

    def shift(self) -> None:
        word, self.lower = divmod(self.lower, WORD)
        self.lower, self.width = self.lower * WORD, self.width * WORD
        if self.held or self.lower + self.width >= STATE:
            self.held.append(word)
        else:
            self.words.append(word)

    def release(self, carry: bool) -> None:
        self.words += [(word + carry) % WORD for word in self.held]
        self.held = []

    def finish(self) -> list[int]:
        """As few words as end in the interval, whatever is read after them."""
        if self.width == STATE - 1 and not self.words:
            return []
        end = self.lower + WORD - 1
        self.release(carry=end >= STATE)
        self.words.append(end % STATE // WORD)
        if (self.lower + self.width) % STATE // WORD == self.words[-1]:
            self.words.append(0)
        return self.words


class Decoder:
    """Reads symbols from words; after the last, zeros."""

    def __init__(self, words: Sequence[int]) -> None:
        self.words = iter(words)
        self.lower, self.width = 0, STATE - 1
        self.point = self.word() * WORD + self.word()

    def word(self) -> int:
        return next(self.words, 0)

    def decode(self, count: int, table: Sequence[int]) -> list[int]:
        """Raises ValueError: the words were not made with these tables."""
        found = []
        for _ in range(count):
            part = self.width >> PRECISION
            place = (self.point - self.lower) % STATE // part
            if place >> PRECISION:
                raise ValueError("the words belong to other symbols")
            symbol = bisect_right(table, place) - 1
            self.lower = (self.lower + part * table[symbol]) % STATE
            self.width = part * (table[symbol + 1] - table[symbol])
            if self.width < WORD:
                self.lower, self.width = self.lower * WORD % STATE, self.width * WORD
                self.point = (self.point * WORD + self.word()) % STATE
            found.append(symbol)
        return found
