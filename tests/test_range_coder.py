"""The range coder: every symbol comes back, in as few bits as its probability allows, in constriction's words."""

from copy import deepcopy

import numpy as np
import pytest

from semcast.modulation.range_coder import PRECISION, Decoder, Encoder, cumulative


def message(seed: int) -> list[tuple[list[int], list[float]]]:
    """Some runs of symbols, each with its weights: even, steep, or with one symbol that is nearly certain."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rng.integers(0, 80)):
        n = int(rng.integers(2, 50))
        weights = rng.random(n) ** rng.integers(1, 12) if rng.random() < 0.7 else np.r_[1, np.full(n - 1, 1e-9)]
        drawn = rng.choice(n, p=weights / weights.sum(), size=rng.integers(1, 6))
        found.append((drawn.tolist(), weights.tolist()))
    return found


def encoded(runs: list[tuple[list[int], list[float]]]) -> list[int]:
    coder = Encoder()
    for symbols, weights in runs:
        coder.encode(symbols, cumulative(weights))
    return coder.finish()


@pytest.mark.parametrize("seed", range(30))
def test_every_symbol_comes_back_whatever_follows(seed):
    runs = message(seed)
    words = encoded(runs)
    for tail in ([], [0, 0], [2**32 - 1] * 3):
        coder = Decoder(words + tail)
        assert [coder.decode(len(symbols), cumulative(weights)) for symbols, weights in runs] == [
            run[0] for run in runs
        ]


def test_words_are_as_few_as_the_probabilities_allow():
    weights = np.random.default_rng(0).random(40)
    chances = weights / weights.sum()
    symbols = np.random.default_rng(1).choice(40, p=chances, size=20_000)
    bits = -np.log2(chances[symbols]).sum()
    assert bits <= 32 * len(encoded([(symbols.tolist(), weights.tolist())])) < 1.0002 * bits + 64


@pytest.mark.parametrize("last", [0, 2], ids=["no carry", "carry"])
def test_a_carry_reaches_the_words_that_wait_for_it(last):
    """Symbols are chosen so that the interval keeps a multiple of 2^64, until the last ones decide."""
    table = [0, 1 << 22, 3 << 22, 1 << PRECISION]
    coder, symbols = Encoder(), []
    for _ in range(300):
        tried = {symbol: deepcopy(coder) for symbol in (1, 0, 2)}
        for symbol, one in tried.items():
            one.encode([symbol], table)
        kept = [symbol for symbol, one in tried.items() if not one.words]
        coder = tried[kept[0]]
        symbols.append(kept[0])
    assert len(coder.held) > 8 and not coder.words
    coder.encode([last] * 9, table)
    words = coder.finish()
    assert words[0] == 2**31 - (last == 0) and set(words[1:9]) == {0 if last else 2**32 - 1}
    assert Decoder(words).decode(len(symbols) + 9, table) == symbols + [last] * 9


def test_tables_give_every_symbol_a_share():
    table = cumulative([1.0, 0.0, 1e-300, 3.0])
    assert table[0] == 0 and table[-1] == 1 << PRECISION and np.diff(table).min() >= 1
    assert np.diff(table)[-1] == pytest.approx(0.75 * (1 << PRECISION), abs=4)


def test_words_of_other_symbols_end_in_an_error_or_in_symbols():
    rng, refused = np.random.default_rng(0), 0
    for _ in range(200):
        table = cumulative([1.0] * 3)
        try:
            assert set(Decoder(rng.integers(0, 2**32, 4).tolist()).decode(100, table)) <= {0, 1, 2}
        except ValueError:
            refused += 1
    assert refused < 200


@pytest.mark.parametrize("seed", range(100))
def test_words_are_those_of_constriction(seed):
    constriction = pytest.importorskip("constriction", reason="has no wheel for this platform")
    runs, theirs = message(seed), constriction.stream.queue.RangeEncoder()
    model = lambda weights: constriction.stream.model.Categorical(np.array(weights), perfect=False)
    for symbols, weights in runs:
        theirs.encode(np.array(symbols, np.int32), model(weights))
    assert theirs.get_compressed().tolist() == encoded(runs)
