"""The parts of the bench alone: pictures, channel uses, copies, records, intervals, experiments."""

import math

import numpy as np
import pytest
from test_channel import gaussian, seeded
from tiny import photo

from semcast.bench import base, ours, records, systems, unit
from semcast.bench.experiments import EXPERIMENTS, GRID_DB, OF_THE_MODEL
from semcast.bench.harness import count_uses, picture_sha256
from semcast.bench.ours import largest_factor
from semcast.bench.pictures import Pictures
from semcast.bench.summary import interval
from semcast.bench.systems import find_system
from semcast.bench.unit import Setting, propagate
from semcast.channels.catalogue import find_channel
from semcast.errors import InputError
from semcast.modulation.analog import demodulate


def test_the_harness_measures_the_snr_it_was_asked_for():
    x = np.exp(2j * math.pi * np.random.default_rng(0).random((1, 200_000))).astype(np.complex64)
    for channel in ("awgn", "rayleigh-fast"):
        setting = Setting(channel=channel, options=(("snr_mismatch_db", 0.0),))
        for snr_db in GRID_DB:
            _, noise = propagate(find_system("downscale"), x, snr_db, "ab", 0, setting)
            assert abs(noise["es_n0_db"] - snr_db) < 0.05
            assert noise["channel_uses"] == 200_000
    _, ofdm = propagate(find_system("downscale"), x[:, :1152], 10, "ab", 0, Setting(channel="tdl-a"))
    assert ofdm["channel_uses"] == 1442  # pilots, cyclic prefix and empty places


def test_uses():
    assert count_uses("same", 512, 512) == count_uses("1152", 512, 512) == count_uses("1/683", 512, 512) == 1152
    assert 4608 <= count_uses("1/683", 1024, 1024) <= 4612
    assert largest_factor(512, 512, 1152, 0.75) == 0.75
    for rule in ("1/0", "x", "0", "0.1", "1/9999999"):
        with pytest.raises(InputError, match="--uses"):
            count_uses(rule, 512, 512)
    with pytest.raises(InputError, match="too few for semcast"):
        largest_factor(512, 512, 100, 0.75)


def test_interval_covers_the_mean():
    low, high = interval(np.arange(24.0))
    assert low < 11.5 < high and high - low == pytest.approx(2 * 1.96 * np.arange(24).std() / 24**0.5, rel=0.1)


def test_pictures_are_named_by_their_pixels():
    assert picture_sha256(np.zeros((2, 3, 3), np.uint8)) != picture_sha256(np.zeros((3, 2, 3), np.uint8))


def test_a_limit_spreads_over_the_data(bench_data):
    photos = bench_data.photos
    assert Pictures([p for _, p, *_ in photos.items] * 3, limit=4).names == [
        "0.png",
        "1.png",
        "1.png",
        "0.png",
    ]  # 0 1 0 1 0 1: 0, 1, 3, 4
    assert Pictures([p for _, p, *_ in photos.items], limit=9).names == ["0.png", "1.png"]
    picked = Pictures([p for _, p, *_ in photos.items] * 3, limit=4)
    assert np.array_equal(picked.read(3), photos.read(0)) and np.array_equal(picked.read(2), photos.read(1))


def test_a_record_gives_back_its_rows_and_merging_keeps_what_was_not_measured():
    versions = {"commit": "a", "cpu": "b", "semcast": "0.2.0", "torch": "2"}
    base = {
        "image": "i.png", "image_sha256": "00", "channel": "awgn", "channel_options": {"snr_mismatch_db": 0.0},
        "uses_rule": "same", "size": 96, "copies": 1, "snr_error_db": 0.0, "uses": 72, "payload_uses": 72,
        "side_bits": 10, "draw": 0, "lost": False, "headline": False, "versions": versions,
    }  # fmt: skip
    rows = [
        base | {"system": system, "system_version": "1", "snr_db": snr, "copies": copies, "lpips": snr / 10}
        for system in ("a", "b")
        for snr in (1.0, 10.0)
        for copies in (1, 2)
    ]
    record = records.record(rows, "e", "command")
    found = records.rows_of(record)
    assert len(record["settings"]) == 2 and len(record["pictures"]) == 1
    assert [(r["system"], r["snr_db"], r["copies"], r["lpips"]) for r in found] == [
        (r["system"], r["snr_db"], r["copies"], r["lpips"]) for r in rows
    ]
    new = records.record(
        [row | {"system_version": "2", "lpips": 9.0} for row in rows if row["system"] == "a"], "e", "later"
    )
    new["versions"]["torch"] = "3"
    merged = records.merged(record, new)
    assert merged["versions"] == {"torch": "2, 3"}  # the rows kept were measured with the other
    assert records.merged(new, new)["versions"] == {"torch": "3"}
    assert merged["systems"] == {"b": "1", "a": "2"} and merged["command"] == "later"
    by = {name: {r["lpips"] for r in records.rows_of(merged) if r["system"] == name} for name in "ab"}
    assert by == {"a": {9.0}, "b": {0.1, 1.0}}
    with pytest.raises(InputError, match=r"^rows differ in versions \(torch\)"):
        records.record([rows[0], rows[1] | {"versions": versions | {"torch": "3"}}], "e", "c")
    with pytest.raises(InputError, match="there are no rows"):
        records.record([], "e", "c")


def test_copies_are_combined_and_pay_and_a_wrong_snr_reaches_both_ends():
    x, told = gaussian(1, 400).numpy(), []
    system = base.System("told", lambda *a: None, lambda *a: None)
    plain, twice = (unit.propagate(system, x, 10.0, "ab", 0, unit.Setting(copies=n)) for n in (1, 2))
    assert twice[1]["channel_uses"] == 2 * plain[1]["channel_uses"] == 800
    error = [np.mean(np.abs(received.y - x) ** 2) for received, _ in (plain, twice)]
    assert error == pytest.approx([0.1, 0.05], rel=0.25) and twice[0].noise_var.item() == pytest.approx(0.05)
    wrong, _ = unit.propagate(system, x, 10.0, "ab", 0, unit.Setting(snr_error_db=6.0))
    assert np.array_equal(wrong.y, plain[0].y) and wrong.noise_var.item() == pytest.approx(10**-1.6)

    class Ends:
        def send(self, name, pixels, uses, snr_db):
            told.append(snr_db)
            return x[:, :uses] / np.sqrt(np.mean(np.abs(x[:, :uses]) ** 2)), base.mean_colour(pixels), 1.0

        def receive(self, name, received, side):
            return None, 1.0

    pixels = photo(64, 64)
    jobs = (("downscale", 10.0, (0,)),)
    work = unit.Unit("i", "ab", 24, jobs, unit.Setting(snr_error_db=-4.0, headline=()), False, 0, pixels)
    ((row, _, _),) = unit.measure_unit(work, Ends())
    assert told == [6.0] and row["snr_error_db"] == -4.0 and row["lost"]


@pytest.mark.parametrize(
    "name, options", [("awgn", {}), ("rayleigh-fast", {}), ("erasure", {"rate": 0.2}), ("tdl-c", {"estimation": "ls"})]
)
def test_the_ignorant_receiver_is_told_one_variance(name, options):
    x = gaussian(2, 1152).numpy()
    received = find_channel(name)(x, 10.0, seeded(1, 2), **options)
    told = ours.one_variance(received)
    assert told.noise_var.shape == told.h.shape == (2, 1) and (told.h == 1).all()
    z, noise = demodulate(told, 1.0, (16, 12, 12), noise_aware=True)
    assert all(len(np.unique(row)) == 1 for row in noise)  # no map
    assert np.allclose(
        z.reshape(2, -1) * (1 + told.noise_var), np.concatenate([told.y.real, told.y.imag], axis=1), rtol=1e-4
    )  # one weight
    arrived = np.broadcast_to(np.isfinite(received.noise_var), x.shape)
    error = np.abs(told.y - x) ** 2
    for row in range(2):
        mean = np.broadcast_to(received.noise_var / np.abs(received.h) ** 2, x.shape)[row][arrived[row]].mean()
        assert told.noise_var[row].item() == pytest.approx(mean.item(), rel=1e-4)
        assert (told.y[row][~arrived[row]] == 0).all()
        if name in ("awgn", "erasure"):
            assert told.noise_var[row].item() == pytest.approx(0.1) and error[row][
                arrived[row]
            ].mean() == pytest.approx(0.1, rel=0.2)
            weight = (x[row].conj() * told.y[row]).real.sum() / np.sum(np.abs(told.y[row]) ** 2)  # the best single one
            assert weight.item() == pytest.approx(1 / 1.1, rel=0.03)


def test_every_published_experiment_names_systems_that_exist(example_rivals):
    for name, experiment in EXPERIMENTS.items():
        for run in experiment.runs:
            for system in run.systems:
                systems.find_system(system.partition("@")[0])
            find_channel(run.channel).check(run.options)
        assert experiment.about, name
    assert set(OF_THE_MODEL) <= set(EXPERIMENTS)
