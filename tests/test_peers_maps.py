"""GESCO's maps: exact bytes at every scale, the finest that fits, the noise of the published table."""

import numpy as np
import pytest
import torch
from peer_parts import street
from tiny import photo

from semcast.bench.peers import gesco, maps
from semcast.bench.peers.maps import SCALES, decode_map, encode_map, expected_bits, fit_map, restore_map
from semcast.channels.noise import awgn
from semcast.metrics.segmenter import VOID
from semcast.modulation import mcs
from semcast.randomness import seeded


def test_maps_come_back_bit_exactly_at_every_scale(peers):
    for height, width in ((96, 128), (67, 101)):
        for classes in (
            street(height, width, 9),
            np.full((height, width), VOID, np.uint8),
            photo(height, width)[..., 0] % 12,
        ):
            for index, scale in enumerate(SCALES):
                small, odds = maps.shrink_map(classes, scale), maps.load_odds(index)
                payload = encode_map(small, odds)
                assert np.array_equal(decode_map(payload, *small.shape, odds), small)
                assert np.array_equal(decode_map(payload + b"\0\0\0", *small.shape, odds), small)
                assert (
                    8 * len(payload) - expected_bits(small, odds) < 70 + len(payload) / 50
                )  # two words; odds are rounded
                shown = restore_map(payload, index, height, width)
                assert shown.shape == classes.shape and (scale > 1 or np.array_equal(shown, classes))


def test_the_most_frequent_class_of_a_block_is_kept():
    classes = np.array([[1, 1, 5], [1, 2, 5], [7, 7, 9]], np.uint8)
    assert maps.shrink_map(classes, 2).tolist() == [[1, 5], [7, 9]]
    assert maps.enlarge_map(np.array([[1, 5], [7, 9]]), 2, 3, 3).tolist() == [[1, 1, 5], [1, 1, 5], [7, 7, 9]]


def test_the_finest_map_within_the_budget_of_every_snr(peers):
    classes, chosen = street(360, 480, 3), []
    for snr_db in (-2.0, 1.0, 5.0, 10.0, 20.0):
        budget = mcs.plan(864, mcs.choose(864, snr_db)).payload_bytes
        payload, index = fit_map(classes, budget)
        assert 0 < len(payload) <= budget
        finer = maps.shrink_map(classes, SCALES[index - 1])
        assert index == 0 or len(encode_map(finer, maps.load_odds(index - 1))) > budget
        chosen.append(SCALES[index])
    assert chosen == sorted(chosen, reverse=True) and chosen[0] > chosen[-1]
    assert fit_map(classes, 2) == (b"", 0)


def test_odds_are_odds(peers):
    for index in range(len(SCALES)):
        odds = maps.load_odds(index)
        for context in [*list(odds.full)[:50], 0, (maps.OUTSIDE + 1) ** 4 - 1]:
            assert odds.of(context).sum() == pytest.approx(1) and odds.of(context).min() > 0


def test_the_table_of_noise():
    for snr_db, std in ((30, 0.05), (25, 0.08), (20, 0.13), (15, 0.22), (10, 0.36), (5, 0.6), (1, 0.9)):
        assert gesco.table_std(snr_db) == pytest.approx(std)
    assert gesco.table_std(-9) == 0.9 and gesco.table_std(99) == pytest.approx(0.05)
    assert 0.22 < gesco.table_std(12) < 0.36


def test_published_maps_arrive_with_the_tables_noise(peers, few_steps, monkeypatch):
    """What the painter sees of a class that covers the picture; classes that are not there are exactly nothing."""
    seen = []
    monkeypatch.setattr(gesco, "denoiser", lambda maps, device: (seen.append(maps), lambda x, t: x)[1])
    truth = np.full((256, 320), 3, np.uint8)
    x, side = gesco.send_published(photo(256, 320), 0, 10.0, truth)
    assert side["classes"] == (1 << 3, 12)
    monkeypatch.setattr(gesco.F, "avg_pool2d", lambda m, *_: m)
    monkeypatch.setattr(gesco.F, "max_pool2d", lambda m, *_: m)
    for snr_db in (5.0, 20.0):
        gesco.receive_published(awgn(x, snr_db, [seeded(0)]), side, "cpu")
        noise = seen[-1][0, 3] - 1
        assert noise.std().item() == pytest.approx(gesco.NOISE_STD[snr_db], rel=0.02)
        assert seen[-1][0, :12][[c for c in range(12) if c != 3]].abs().max() == 0 and seen[-1][0, 12].std() > 0


def test_a_map_as_the_painter_sees_it():
    classes = street(90, 120)
    seen = gesco.one_hot(classes)[0]
    assert seen.shape == (13, 90, 120) and torch.equal(seen[:12].argmax(0).byte(), torch.from_numpy(classes))
    assert seen[:12].sum(0).unique().tolist() == [1]
    edge = seen[12].bool().numpy()
    for i, j in np.ndindex(88, 118):
        near = [classes[i + 1 + a, j + 1 + b] for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        assert edge[i + 1, j + 1] == any(c != classes[i + 1, j + 1] for c in near)
    assert gesco.at_cells(seen[None]).shape == (1, 13, 12, 15)
