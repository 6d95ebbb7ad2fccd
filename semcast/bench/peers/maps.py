"""Maps of classes as bytes: a range coder whose odds for a pixel depend on its four neighbours that came before.

The odds are counts from labelled pictures, one table for every scale, and do not adapt. Where a context is rare, they
lean on those of the pixel's left and upper neighbours alone.
"""

import functools
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from ...errors import InputError
from ...files import load_arrays, write_bytes
from ...metrics.segmenter import VOID
from ...modulation.range_coder import Decoder, Encoder, cumulative
from .parts import MAP_CODER, check_parts, weights_path

SYMBOLS = VOID + 1  # the classes, and void
OUTSIDE = SYMBOLS  # the class of what lies outside the picture
SCALES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32)  # pixels a side that share one symbol
LEAN = 2.0  # weight of the simpler odds, in counts


class Odds:
    """The odds of a pixel's class at one scale, by its context; see `contexts`."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray):
        """keys: context * SYMBOLS + class, each once; counts: how often it was seen."""
        context, symbol = np.divmod(keys.astype(np.int64), SYMBOLS)
        order = np.argsort(context, kind="stable")
        seen, starts = np.unique(context[order], return_index=True)
        groups = np.split(order, starts[1:]) if len(seen) else []
        self.full = {int(c): (symbol[rows], counts[rows]) for c, rows in zip(seen, groups)}
        pairs = np.zeros(((OUTSIDE + 1) ** 2, SYMBOLS))  # by left and upper neighbour
        np.add.at(pairs, (context // (OUTSIDE + 1) ** 2, symbol), counts)
        alone = (pairs.sum(axis=0) + 1) / (pairs.sum() + SYMBOLS)
        self.pairs = (pairs + LEAN * alone) / (pairs.sum(axis=1, keepdims=True) + LEAN)
        self.of = functools.lru_cache(maxsize=None)(self._of)
        self.table = functools.lru_cache(maxsize=None)(self._table)

    def _of(self, context: int) -> np.ndarray:
        """The probabilities [SYMBOLS] of a pixel's class."""
        simple = self.pairs[context // (OUTSIDE + 1) ** 2]
        if context not in self.full:
            return simple
        symbols, counts = self.full[context]
        odds = LEAN * simple
        odds[symbols] += counts
        return odds / (counts.sum() + LEAN)

    def _table(self, context: int) -> list[int]:
        return cumulative(self.of(context).tolist())


def contexts(small: np.ndarray) -> np.ndarray:
    """Of every pixel of a map [h, w]: its left, upper, upper left and upper right neighbours, as one number."""
    framed = np.pad(small.astype(np.int64), ((1, 0), (1, 1)), constant_values=OUTSIDE)
    left, up, before, after = framed[1:, :-2], framed[:-1, 1:-1], framed[:-1, :-2], framed[:-1, 2:]
    base = OUTSIDE + 1
    return ((left * base + up) * base + before) * base + after


def shrink_map(classes: np.ndarray, scale: int) -> np.ndarray:
    """uint8 [H, W] -> [ceil(H / scale), ceil(W / scale)]: the most frequent class of each block, void counted as one."""
    height, width = classes.shape
    padded = np.pad(classes, ((0, -height % scale), (0, -width % scale)), mode="edge")
    rows, columns = (n // scale for n in padded.shape)
    block = np.arange(rows).repeat(scale)[:, None] * columns + np.arange(columns).repeat(scale)  # of each pixel
    counts = np.bincount((block * SYMBOLS + padded).ravel(), minlength=rows * columns * SYMBOLS)
    return counts.reshape(rows, columns, SYMBOLS).argmax(axis=2).astype(np.uint8)


def enlarge_map(small: np.ndarray, scale: int, height: int, width: int) -> np.ndarray:
    return small.repeat(scale, axis=0).repeat(scale, axis=1)[:height, :width]


def encode_map(small: np.ndarray, odds: Odds) -> bytes:
    """A map [h, w] -> whole words of 4 bytes."""
    coder = Encoder()
    for symbol, context in zip(small.ravel().tolist(), contexts(small).ravel().tolist()):
        coder.encode([symbol], odds.table(context))
    return np.array(coder.finish(), ">u4").tobytes().rstrip(b"\0")


def decode_map(payload: bytes, height: int, width: int, odds: Odds) -> np.ndarray:
    """The inverse of `encode_map` -> uint8 [height, width]. Zeros at the end may be missing."""
    coder = Decoder(np.frombuffer(payload + bytes(-len(payload) % 4), ">u4").tolist())
    base, framed = OUTSIDE + 1, [[OUTSIDE] * (width + 2) for _ in range(height + 1)]
    for above, row in zip(framed, framed[1:]):
        for j in range(1, width + 1):
            context = ((row[j - 1] * base + above[j]) * base + above[j - 1]) * base + above[j + 1]
            (row[j],) = coder.decode(1, odds.table(context))
    return np.array([row[1:-1] for row in framed[1:]], np.uint8)


def expected_bits(small: np.ndarray, odds: Odds) -> float:
    """What `encode_map` needs, apart from rounding to whole words; much faster."""
    found, places = np.unique(contexts(small), return_inverse=True)
    table = np.stack([odds.of(int(context)) for context in found])
    return float(-np.log2(table[places.ravel(), small.ravel()]).sum())


def fit_map(classes: np.ndarray, budget: int) -> tuple[bytes, int]:
    """The finest scale whose map takes at most `budget` bytes -> (payload, its index in SCALES); (b"", 0) if none."""
    for index, scale in enumerate(SCALES):
        small = shrink_map(classes, scale)
        odds = load_odds(index)
        if expected_bits(small, odds) / 8 < budget + 1 and len(payload := encode_map(small, odds)) <= budget:
            return payload or b"\0", index
    return b"", 0


def map_bytes(classes: np.ndarray) -> list[float]:
    """What the map takes at each of SCALES, in bytes, apart from rounding to whole words."""
    return [expected_bits(shrink_map(classes, scale), load_odds(i)) / 8 for i, scale in enumerate(SCALES)]


def restore_map(payload: bytes, index: int, height: int, width: int) -> np.ndarray:
    """What `fit_map` made -> classes, uint8 [height, width]."""
    scale = SCALES[index]
    small = decode_map(payload, -(-height // scale), -(-width // scale), load_odds(index))
    return enlarge_map(small, scale, height, width)


def count_maps(maps: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The tables of all scales from labels [H, W], mirrored ones too: what `save_counts` keeps."""
    tables = {}
    for index, scale in enumerate(SCALES):
        keys = []
        for classes in maps:
            for side in (classes, classes[:, ::-1]):
                small = shrink_map(side, scale)
                keys.append((contexts(small) * SYMBOLS + small).ravel())
        found, counts = np.unique(np.concatenate(keys), return_counts=True)
        tables |= {f"keys{index}": found.astype(np.int32), f"counts{index}": counts.astype(np.int32)}
    return tables


def save_counts(tables: dict[str, np.ndarray], path: Path, facts: dict) -> None:
    write_bytes(path, save(tables, {"part": MAP_CODER, **{key: str(value) for key, value in facts.items()}}))


def load_odds(index: int) -> Odds:
    """The odds of SCALES[index]. Raises InputError if there are none."""
    check_parts(MAP_CODER)
    path = weights_path(MAP_CODER)
    return _load(index, path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4 * len(SCALES))
def _load(index: int, path: Path, written_ns: int) -> Odds:
    tables = load_arrays(path)
    try:
        return Odds(tables[f"keys{index}"], tables[f"counts{index}"])
    except KeyError as error:
        raise InputError(f"{path} lacks {error}; make it anew") from None
