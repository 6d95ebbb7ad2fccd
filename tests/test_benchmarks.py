"""The scripts in benchmarks/: what they measure, what they measure again, and the tables they make of it."""

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_ENHANCEMENT, photo, tiny_cascade
from PIL import Image
from safetensors.torch import save_file
from test_channel import gaussian, seeded

from semcast.bench import harness, records, systems, unit, workers
from semcast.bench.experiments import EXPERIMENTS, OF_THE_MODEL, Experiment, Run
from semcast.bench.peers.parts import PARTS
from semcast.cascade import models
from semcast.cascade.checkpoint import save_model
from semcast.channels.catalogue import find_channel
from semcast.errors import InputError
from semcast.header import RUNGS, Header
from semcast.images import PHOTO
from semcast.metrics.classifier import WIDTH, kernel_distance
from semcast.metrics.lpips import LPIPS
from semcast.modulation import packet
from semcast.modulation.analog import demodulate
from semcast.modulation.reply import AGAIN_BELOW_DB
from semcast.training.config import PRESETS

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import asking  # noqa: E402
import bench_tables  # noqa: E402
import ladder_tables  # noqa: E402
import measure  # noqa: E402
import packet_gain  # noqa: E402
import results  # noqa: E402
import scripts  # noqa: E402
import speed  # noqa: E402
import tables  # noqa: E402
import train_rate  # noqa: E402
import train_speed  # noqa: E402


@pytest.fixture
def lpips(tmp_path) -> Path:
    """A folder of LPIPS weights of our own making."""
    torch.manual_seed(0)
    save_file(
        {k: v.abs() if k.startswith("lin") else v for k, v in LPIPS("alex").state_dict().items()},
        tmp_path / "lpips_alex.safetensors",
    )
    return tmp_path


def test_transforms_of_a_packet_are_compared_at_one_error(tiny_model, tmp_path, monkeypatch):
    numbers = np.random.default_rng(0).normal(scale=0.5**0.5, size=(16, 12, 12))
    least = numbers.size * -packet_gain.ERROR_DB / 10 * math.log2(10) / 2 / 8  # bytes, by the rate-distortion function
    # a scalar quantiser pays 1/4 bit a number, the model of Laplace numbers a little more
    assert least < packet_gain.size_bytes(numbers) < 1.35 * least

    out = tmp_path / "gain.json"
    argv = ["packet_gain.py", PHOTO, "--crop", 128, "--model", tiny_model, "--out", out]
    monkeypatch.setattr(sys, "argv", [str(a) for a in argv])
    monkeypatch.setattr(packet, "SMOOTH", packet.SMOOTH)  # put back after the test
    packet_gain.main()
    packet.groups.cache_clear()
    assert [row["transforms"] for row in json.loads(out.read_text())["rows"]] == list(packet_gain.TRANSFORMS)


def test_both_ways_to_go_on_take_about_as_many_uses():
    header = Header(0, 512, 512, 0.75, 1.0)
    sizes = header.rung_uses
    for last in range(1, RUNGS):
        uses = {}
        for way, (first, end) in asking.ways(header, last).items():
            assert (first == 1 and end <= last) if way == "again" else (first == last + 1 <= end)
            uses[way] = sum(sizes[first - 1 : end])
        assert 0.8 < uses["again"] / uses["more"] < 1.25
    assert asking.ways(header, 8) == {"again": (1, 8), "more": (9, 9)}
    drawn = [asking.draw(index, 24) for index in range(500)]
    assert {last for _, _, last in drawn} == set(range(1, RUNGS)) and {image for image, *_ in drawn} == set(range(24))
    assert all(-3 <= snr_db <= 20 for _, snr_db, _ in drawn) and asking.draw(7, 24) == drawn[7]


def test_the_rule_that_fits_the_rows_best_is_found():
    limits = dict(zip(AGAIN_BELOW_DB, (2.0, -3.0, 11.0), strict=True))
    rows = []
    for index in range(600):
        picture, snr_db, last = asking.draw(index, 12)
        again = snr_db < limits[max(first for first in limits if first <= last)]
        scores = {"lpips": 0.6, "again_lpips": 0.4 if again else 0.5, "more_lpips": 0.5 if again else 0.4}
        rows.append({"image": f"{picture}.png", "snr_db": snr_db, "last_rung": last, **scores})
    fitted = asking.fit(rows)
    assert all(abs(fitted[first] - limit) <= 1 for first, limit in limits.items())
    assert asking.count_right(rows, fitted) >= 0.99 * len(rows) and asking.share_on_others(rows) > 0.95
    for row in asking.table(rows):
        assert row["cases"] > 2 and (row["last_rung_from"] != 7 or row["again_is_better"] == 0)
    assert sum(len(own) for own in asking.groups(rows).values()) == len(rows)


def test_the_measurement_of_asking_again_goes_on_where_it_stopped(lpips, tmp_path, monkeypatch, capsys):
    save_model(tiny_cascade(enhancement=TINY_ENHANCEMENT), tmp_path / "tiny")
    argv = [
        "asking.py",
        PHOTO,
        "--crop",
        128,
        "--model",
        tmp_path / "tiny",
        "--lpips",
        lpips,
        "--out",
        tmp_path / "a.json",
    ]
    measured, measure_case = [], asking.measure
    monkeypatch.setattr(asking, "measure", lambda *a, seed: measured.append(seed) or measure_case(*a, seed=seed))
    held = {}
    for cases in (2, 3, 3):
        monkeypatch.setattr(sys, "argv", [str(a) for a in (*argv, "--cases", cases)])
        asking.main()
        before, held = held, json.loads((tmp_path / "a.json").read_text())
        assert held["rows"][: len(before.get("rows", []))] == before.get("rows", [])
    assert measured == [0, 1, 2] and len(held["rows"]) == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rule"] == "fitted to the other pictures"
    assert all(row["again_lpips"] != row["lpips"] != row["more_lpips"] for row in held["rows"])
    assert asking.kept_rows(tmp_path / "a.json", {"crop": 256}) == []


@pytest.mark.parametrize("only", ["plain", "recompute"])
def test_a_training_step_is_timed_with_its_memory(only, monkeypatch, capsys):
    argv = ["train_speed.py", "--size", "tiny", "--crop", "64", "--batch", "1", "--runs", "1", "--only", only]
    monkeypatch.setattr(sys, "argv", argv)
    train_speed.main()
    row = json.loads(capsys.readouterr().out)
    assert row["recompute"] == (only == "recompute") and row["peak_gib"] > 0.1
    assert row["projected_minutes"] == pytest.approx(15_000 * row["step_ms"] / 60e3)


@pytest.mark.slow
def test_a_training_run_says_how_well_it_used_the_machine(cli, tiny_model, tmp_path, monkeypatch, capsys):
    command = ["train", "--preset", "scsic-512", "--init", tiny_model, "--data", PHOTO, "--out", tmp_path / "run"]
    settings = [word for setting in ("steps=20", "crop=64", "batch=2", "window=0") for word in ("--set", setting)]
    code, _, error = cli(*command, *settings)
    assert code == 0, error
    monkeypatch.setattr(train_rate, "COUNTED", 2)
    monkeypatch.setattr(sys, "argv", ["train_rate.py", str(tmp_path / "run")])
    train_rate.main()
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert record["steps"] == 17 and 0 < record["step_s"] < rows[-1]["time_s"] and 0 <= record["share_waiting"] < 1
    assert record["tflops"] == pytest.approx(record["tflop"] / record["step_s"]) and 0 < record["share_of_matmul"] < 1
    double = train_rate.count(
        tmp_path / "run" / "model", replace(PRESETS["scsic-512"], crop=64, batch=4, window=0), None, "cpu"
    )
    assert double / 1e12 == pytest.approx(2 * record["tflop"], rel=0.01)  # twice the pictures
    sides = [8, 16, 24]  # what a step costs depends on its draws: the mean counts
    monkeypatch.setattr(train_rate, "COUNTED", len(sides))
    monkeypatch.setattr(train_rate, "backward", lambda state, step, *_: torch.ones(sides[step], 8) @ torch.ones(8, 8))
    flops = train_rate.count(
        tmp_path / "run" / "model", replace(PRESETS["scsic-512"], crop=64, batch=1, window=0), None, "cpu"
    )
    assert flops == np.mean([2 * side * 8 * 8 for side in sides])
    monkeypatch.setattr(sys, "argv", ["train_rate.py", str(tmp_path)])
    with pytest.raises(InputError, match="holds no training run"):
        train_rate.main()


TINY = Experiment(
    about="two systems on two pictures",
    runs=(
        Run(systems=("semcast-1step", "downscale"), snrs=(10.0,), headline=(10.0,)),
        Run(systems=("semcast-1step",), snrs=(10.0,), copies=2),
    ),
    size=96,
)


@pytest.fixture
def lab(tmp_path, tiny_model, lpips, monkeypatch):
    """measure(*flags) runs benchmarks/measure.py on a tiny experiment; `small` is a tiny model in tmp_path/small."""
    for i in range(2):
        Image.fromarray(photo(100, 128, seed=i)).save(tmp_path / f"{i}.png")
    shutil.copytree(tiny_model, tmp_path / "small")
    monkeypatch.setattr(measure, "EXPERIMENTS", {"tiny": TINY})
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)  # where `small` is, for this process
    systems.model_version.cache_clear()
    systems.find_system.cache_clear()
    systems.load_link.cache_clear()
    systems.load_engine.cache_clear()
    monkeypatch.setattr(workers, "Ends", InThisProcess)
    results = tmp_path / "results"
    results.mkdir()
    flags = ["tiny", "--kodak", tmp_path / "0.png", "--lpips", lpips, "--results", results, "--work", tmp_path / "work"]

    def run(*more) -> dict:
        argv = ["measure.py", *flags, "--no-pages", "--workers", 1, *more]
        monkeypatch.setattr(sys, "argv", [str(a) for a in argv])
        measure.main()
        return records.read(results / "tiny.json")

    yield run
    systems.model_version.cache_clear()
    systems.find_system.cache_clear()


def new_weights(folder: Path) -> None:
    """Put another model where `small` is."""
    save_model(tiny_cascade(seed=5), folder)
    for remembered in (systems.model_version, systems.load_link, systems.load_engine):
        remembered.cache_clear()


def of(record: dict, system: str) -> list[dict]:
    return [row for row in record["rows"] if row["system"] == system]


def test_new_weights_are_measured_again_and_nothing_else(lab, tmp_path, capsys):
    path = tmp_path / "results" / "tiny.json"
    first = lab()
    assert [(row["copies"], row["draw"]) for row in of(first, "semcast-1step")] == [(1, 0), (2, 0)]
    assert len(first["rows"]) == 3 and all(row["lpips"] is not None for row in first["rows"])
    assert first["experiment"] == "tiny" and str(tmp_path) not in json.dumps(first["command"])
    kept = path.read_text()
    lab()
    assert path.read_text() == kept  # up to date: not even written
    assert "nothing, all is up to date" in capsys.readouterr().out

    new_weights(tmp_path / "small")
    again = lab()
    assert again["systems"]["semcast-1step"] != first["systems"]["semcast-1step"]
    pairs = zip(of(again, "semcast-1step"), of(first, "semcast-1step"))
    assert all(new["psnr_db"] != old["psnr_db"] for new, old in pairs)
    lines = [[line for line in text.splitlines() if '"downscale", 10.0' in line] for text in (kept, path.read_text())]
    assert len(lines[0]) == 1 and lines[0][0].strip(",") == lines[1][0].strip(",")  # times too: it was not measured

    assert not list((tmp_path / "work").iterdir())  # nothing is left from which `--all` would take old rows
    everything = lab("--all")
    assert of(everything, "semcast-1step")[0]["psnr_db"] == of(again, "semcast-1step")[0]["psnr_db"]


def test_an_interrupted_measurement_goes_on_where_it_stopped(lab, tmp_path, monkeypatch):
    sent = []

    class Interrupted(InThisProcess):
        def send(self, system, *more):
            sent.append(system)
            if len(sent) == 3:
                raise KeyboardInterrupt
            return super().send(system, *more)

    monkeypatch.setattr(workers, "Ends", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab()
    assert not (tmp_path / "results" / "tiny.json").exists()
    assert len(lab()["rows"]) == 3 and sent == ["semcast-1step", "downscale", "semcast-1step", "semcast-1step"]

    sent[:] = [""]
    new_weights(tmp_path / "small")
    with pytest.raises(KeyboardInterrupt):
        lab()
    systems.model_version.cache_clear()
    save_model(tiny_cascade(seed=6), tmp_path / "small")  # not the model whose rows are half measured
    for remembered in (systems.load_link, systems.load_engine):
        remembered.cache_clear()
    lab()
    assert sent == ["", "semcast-1step", "semcast-1step", "semcast-1step", "semcast-1step"]


def test_rows_of_other_metric_weights_or_another_protocol_are_not_mixed(lab, tmp_path, monkeypatch):
    path = tmp_path / "results" / "tiny.json"
    lab()
    raw = records.read_raw(path)
    raw["systems"]["downscale"] = "old"
    records.write(path, raw | {"versions": raw["versions"] | {"lpips_alex": "another"}})
    with pytest.raises(InputError, match="^tiny: the kept rows have lpips_alex another, now it is .*--all$"):
        lab()
    records.write(path, raw | {"versions": raw["versions"] | {"dists": "some"}})
    with pytest.raises(InputError, match="^tiny: the kept rows have dists, which is missing now; give --lpips"):
        lab()
    sent = []
    monkeypatch.setattr(workers, "Ends", type("Ends", (InThisProcess,), {"seen": sent}))
    records.write(path, raw)
    lab()
    assert sent == ["downscale"]
    records.write(path, raw | {"protocol": 0})
    assert lab()["protocol"] == unit.PROTOCOL and sorted(sent[1:]) == ["downscale", "semcast-1step", "semcast-1step"]


def test_experiments_without_their_pictures_are_left_out(lab, monkeypatch, capsys):
    monkeypatch.setattr(measure, "EXPERIMENTS", {"tiny": replace(TINY, pictures="streets")})
    with pytest.raises(FileNotFoundError):  # no record
        lab()
    out, err = capsys.readouterr()
    assert err == "tiny is left out: it needs --streets\n" and "nothing" in out


def test_rivals_without_weights_are_left_out_or_keep_their_rows(lab, peers, few_steps, tmp_path, monkeypatch, capsys):
    run = Run(systems=("semcast-1step", "diffsc"), snrs=(10.0,), headline=(10.0,))
    monkeypatch.setattr(measure, "EXPERIMENTS", {"tiny": replace(TINY, runs=(run,))})
    monkeypatch.setattr(measure, "OF_THE_PEERS", "tiny")
    nowhere = tmp_path / "none"
    advice = f"{nowhere / 'ae32.safetensors'} is missing: `runs/peers.sh PHOTOS LABELS LPIPS {nowhere}` trains "
    monkeypatch.setenv("SEMCAST_PEERS", str(nowhere))
    with pytest.raises(FileNotFoundError):  # no record
        lab()
    said = capsys.readouterr().err
    assert said.startswith(f"tiny is left out: {advice}") and said.count("\n") == 1

    monkeypatch.setenv("SEMCAST_PEERS", str(peers))
    first = lab()
    trained = json.loads((tmp_path / "results" / "peers_training.json").read_text())
    assert trained["parts"].keys() == PARTS.keys() and trained["parts"]["ae32"]["weights"] in first["systems"]["diffsc"]

    monkeypatch.setenv("SEMCAST_PEERS", str(nowhere))
    new_weights(tmp_path / "small")
    capsys.readouterr()
    again = lab()
    assert capsys.readouterr().err.startswith(f"tiny: the kept rows of diffsc stay: {advice}")
    assert of(again, "diffsc") == of(first, "diffsc") and again["systems"]["diffsc"] == first["systems"]["diffsc"]
    assert of(again, "semcast-1step")[0]["psnr_db"] != of(first, "semcast-1step")[0]["psnr_db"]


def test_distances_between_sets_are_kept_with_their_rows(tmp_path):
    rng = np.random.default_rng(0)
    features = {f"{i:064x}": rng.standard_normal(WIDTH).astype(np.float16) for i in range(30)}
    (tmp_path / harness.FEATURES).write_bytes(
        b"".join(bytes.fromhex(sha256) + values.tobytes() for sha256, values in features.items())
    )
    rows = [
        row_of(system, 10.0, 0.5, image_sha256=f"{i:064x}", received_sha256=f"{i + shift:064x}")
        for system, shift in (("a", 10), ("b", 20))
        for i in range(10)
    ]
    found = measure.set_distances(rows, tmp_path)
    originals, received = (np.stack([features[f"{i:064x}"] for i in range(n, n + 10)]) for n in (0, 10))
    assert [(one["system"], one["snr_db"], one["pictures"]) for one in found] == [("a", 10.0, 10), ("b", 10.0, 10)]
    assert found[0]["mean"] == pytest.approx(kernel_distance(originals, [received])[0], abs=1e-6)
    first = records.record(rows, "e", "c", found)
    later = records.record([row for row in rows if row["system"] == "a"], "e", "c", [found[0] | {"mean": 9.0}])
    assert [one["mean"] for one in records.merged(first, later)["distances"]] == [found[1]["mean"], 9.0]


class InThisProcess:
    """Sender and receiver without processes of their own: these would look for the shipped `small`."""

    seen: list[str] = []
    warm = ()

    def __init__(self, device: str = "cpu"):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def send(self, system, pixels, uses, snr_db):
        self.seen.append(system)
        x, side = systems.find_system(system).send(pixels, uses, snr_db)
        return x, side, 1.0

    def receive(self, system, received, side):
        return systems.find_system(system).receive(received, side), 1.0


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
    system = systems.System("told", lambda *a: None, lambda *a: None)
    plain, twice = (unit.propagate(system, x, 10.0, "ab", 0, unit.Setting(copies=n)) for n in (1, 2))
    assert twice[1]["channel_uses"] == 2 * plain[1]["channel_uses"] == 800
    error = [np.mean(np.abs(received.y - x) ** 2) for received, _ in (plain, twice)]
    assert error == pytest.approx([0.1, 0.05], rel=0.25) and twice[0].noise_var.item() == pytest.approx(0.05)
    wrong, _ = unit.propagate(system, x, 10.0, "ab", 0, unit.Setting(snr_error_db=6.0))
    assert np.array_equal(wrong.y, plain[0].y) and wrong.noise_var.item() == pytest.approx(10**-1.6)

    class Ends:
        def send(self, name, pixels, uses, snr_db):
            told.append(snr_db)
            return x[:, :uses] / np.sqrt(np.mean(np.abs(x[:, :uses]) ** 2)), systems.mean_colour(pixels), 1.0

        def receive(self, name, received, side):
            return None, 1.0

    pixels = photo(64, 64)
    jobs = (("downscale", 10.0, (0,)),)
    work = unit.Unit("i", "ab", 24, jobs, unit.Setting(snr_error_db=-4.0, headline=()), False, 0, pixels)
    ((row, _, _),) = unit.measure_unit(work, Ends())
    assert told == [6.0] and row["snr_error_db"] == -4.0 and row["lost"]


def test_every_published_experiment_names_systems_that_exist():
    for name, experiment in EXPERIMENTS.items():
        for run in experiment.runs:
            for system in run.systems:
                systems.find_system(system.partition("@")[0])
            find_channel(run.channel).check(run.options)
        assert experiment.about, name
    assert set(OF_THE_MODEL) <= set(EXPERIMENTS)


def row_of(system: str, snr_db: float, lpips: float, **more) -> dict:
    """A made-up row of the bench."""
    fixed = {"image": "i.png", "image_sha256": "00", "channel": "awgn", "channel_options": {}, "uses_rule": "same"}
    fixed |= {"size": 96, "copies": 1, "snr_error_db": 0.0, "uses": 72, "payload_uses": 72, "side_bits": 10, "draw": 0}
    fixed |= {"lost": False, "headline": True, "versions": {"torch": "2"}, "system_version": "1", "psnr_db": 20.0}
    return fixed | {"system": system, "snr_db": snr_db, "lpips": lpips} | more


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """keep(name, rows) keeps the record of an experiment where the tables look for it."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    return lambda name, rows: records.write(tmp_path / f"{name}.json", records.record(rows, name, "command"))


def test_the_table_of_a_bench_averages_draws_then_pictures(keep):
    draws = (("00", 0, 20.0), ("00", 1, 22.0), ("11", 0, 25.0))
    rows = [
        row_of("downscale", snr, 0.5, image_sha256=image, draw=draw, psnr_db=psnr + snr, lost=draw == 1)
        for snr in (1.0, 5.0, 10.0)
        for image, draw, psnr in draws
    ]
    keep("grid", rows)
    table = bench_tables.bench()
    cells = "0.500 / 0.500 / 0.500 | 24.00 / 28.00 / 33.00 | 33 / 33 / 33 % | 10 |"
    assert f"\n| `downscale` | {cells}" in table
    assert "2 pictures (centre 96x96), up to 2 draws, 72 channel uses each, awgn. " in table
    assert "`python benchmarks/measure.py grid`; protocol 1, versions and hashes: `grid.json`." in table


def test_every_rate_is_shown_with_what_was_filled_of_it(keep, monkeypatch):
    monkeypatch.setattr(bench_tables, "RATE_RATIOS", (683, 96))
    uses = {683: 54, 96: 384}
    keep(
        "rate",
        [
            row_of("downscale", snr, 1 / k, uses_rule=f"1/{ratio}", uses=k, payload_uses=k - 1, psnr_db=snr)
            for ratio, k in uses.items()
            for snr in (1.0, 10.0)
        ],
    )
    lines = bench_tables.bench_rate().splitlines()
    assert lines[2:4] == [
        "| `downscale` | 1/683 | 53 | 0.019 / 0.019 | 1.00 / 10.00 |",
        "| `downscale` | 1/96 | 383 | 0.003 / 0.003 | 1.00 / 10.00 |",
    ]


def test_the_table_and_the_plot_of_the_ladder_have_every_rate(keep):
    rows = [
        row_of(
            system, snr, lpips / uses, uses_rule=str(uses), uses=uses, payload_uses=uses - 2, psnr_db=snr, dists=0.25
        )
        for system, lpips in (("semcast-ladder", 400.0), ("linear", 800.0))
        for uses in (8192, 1152)
        for snr in (1.0, 10.0)
    ]
    keep("ladder", rows)
    lines = ladder_tables.ladder().splitlines()
    assert lines[2:4] == [
        "| 1152 (1/683) | `semcast-ladder` | 1150 | 0.347 / 0.347 | 1.00 / 10.00 | 0.250 / 0.250 |",
        "| 1152 (1/683) | `linear` | 1150 | 0.694 / 0.694 | 1.00 / 10.00 | 0.250 / 0.250 |",
    ]
    assert lines[4].startswith("| 8192 (1/96) | `semcast-ladder` | 8190 | 0.049 / 0.049 |") and len(lines) == 8
    drawn = ladder_tables.ladder_plot("lpips", 10.0)
    assert drawn.startswith("<svg") and "channel uses at 10 dB" in drawn and drawn.count("<polyline") == 2


def test_tables_of_the_stream_show_the_shortest_prefix_that_is_good_enough(keep):
    made = lambda uses, snr, lpips, **more: row_of(
        "semcast-ladder", snr, lpips, uses_rule=str(uses), uses=uses, payload_uses=uses, psnr_db=20.0, **more
    )
    rows = [made(uses, snr, 0.7 - uses / 1e5 - snr / 100) for uses in (144, 20000, 40000) for snr in (5.0, 10.0)]
    erased = {"channel": "erasure", "channel_options": {"rate": 0.5}}
    keep("prefixes", [*rows, made(40000, 10.0, 0.5, **erased)])
    lines = ladder_tables.prefixes().splitlines()
    assert lines[0] == "| channel uses | LPIPS-Alex at 5 / 10 dB | PSNR dB |"
    assert lines[2:4] == ["| 144 | 0.649 / 0.599 | 20.00 / 20.00 |", "| 40000 | 0.250 / 0.200 | 20.00 / 20.00 |"]
    assert lines[7:10] == [
        "| all arrive | 0.200 | 20.00 |",
        "| half are erased | 0.500 | 20.00 |",
        "| only half are sent | 0.400 | 20.00 |",
    ]
    lines = ladder_tables.rates().splitlines()
    assert lines[2:4] == [
        "| 5 dB | 20000 uses | 20000 uses | 20000 uses | 20000 uses | 40000 uses |",
        "| 10 dB | 144 uses | 20000 uses | 20000 uses | 20000 uses | 20000 uses |",
    ]


def crossing_of_made_up_rows() -> list[dict]:
    """LPIPS: analog 0.7 - 0.01 SNR, digital 0.85 - 0.025 SNR, which meet at 10 dB. Told too much, digital is lost."""
    rows = [row_of("mean-colour", 10.0, 0.9, lost=True)]
    for snr in (0.0, 8.0, 10.0, 12.0):
        for error in (-6.0, 0.0, 6.0):
            lost = error > 0
            rows.append(row_of("semcast", snr, 0.7 - 0.01 * snr, snr_error_db=error))
            digital = 0.9 if lost else 0.85 - 0.025 * snr
            rows.append(row_of("semcast-digital", snr, digital, snr_error_db=error, lost=lost))
        rows.append(row_of("semcast-digital-fixed", snr, 0.95 if snr < 8 else 0.6))
    return rows


def test_outage_is_a_lost_picture_or_one_no_better_than_the_mean_colour(keep, tmp_path):
    keep("crossing", crossing_of_made_up_rows())
    groups = tables.crossing_rows(results.read("crossing.json"))
    outage = {key: row["outage"] for key, (row,) in groups.items()}
    assert outage["semcast-digital", 10.0, 6.0] and not outage["semcast-digital", 10.0, 0.0]
    assert outage["semcast-digital-fixed", 0.0, 0.0]  # it arrived, and is worse than the mean colour
    assert not any(value for (system, *_), value in outage.items() if system == "semcast")
    assert tables.outage().splitlines() == [
        "| system | metric | -6 dB | 0 dB | +6 dB |",
        "|---|---|---|---|---|",
        "| analog | outage | 0 % | 0 % | 0 % |",
        "| analog | LPIPS-Alex | 0.600 | 0.600 | 0.600 |",
        "| digital | outage | 0 % | 0 % | 100 % |",
        "| digital | LPIPS-Alex | 0.600 | 0.600 | 0.900 |",
    ]
    tables.crossing_plot(tmp_path / "crossing.png")
    assert Image.open(tmp_path / "crossing.png").size == (1200, 460)


def test_where_analog_and_digital_change_places_is_said(keep):
    rows = crossing_of_made_up_rows()
    nudged = [row | {"lpips": row["lpips"] + 0.015} if row["system"] == "semcast" else row for row in rows]
    keep("crossing", nudged)  # 0.715 - 0.01 snr = 0.85 - 0.025 snr at 9 dB
    table = tables.crossing()
    assert "LPIPS-Alex 0.900, PSNR 20.00 dB. Analog has the lower LPIPS-Alex up to 9.0 dB." in table
    assert "| digital, told 6 dB too much | lost | 100 % | 100 % | 100 % | 100 % |" in table
    keep("crossing", [row | {"lpips": 0.1} if row["system"] == "semcast" else row for row in rows])
    assert "Analog has the lower LPIPS-Alex from 0 to 12 dB: the curves do not cross." in tables.crossing()


def test_curves_cross_where_straight_lines_do():
    assert tables.crossings([0, 10, 20], [1.0, 1.0, 1.0], [3.0, 2.0, 0.0]) == [15.0]
    assert tables.crossings([0, 10], [1.0, 1.0], [2.0, 3.0]) == []


def test_tables_of_missing_results_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert tables.tables()["crossing"] == "Not measured yet: `crossing.json` is missing."


@pytest.mark.parametrize(
    "name, options", [("awgn", {}), ("rayleigh-fast", {}), ("erasure", {"rate": 0.2}), ("tdl-c", {"estimation": "ls"})]
)
def test_the_ignorant_receiver_is_told_one_variance(name, options):
    x = gaussian(2, 1152).numpy()
    received = find_channel(name)(x, 10.0, seeded(1, 2), **options)
    told = systems.one_variance(received)
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


def test_paths_outside_the_repository_are_named_by_their_last_part():
    words = ["--kodak", "/data/kodak", "../lpips", "out/a", "noisy=/data/runs/model", "1/683"]
    assert [scripts.shown(w) for w in words] == ["--kodak", "kodak", "lpips", "out/a", "noisy=model", "1/683"]


@pytest.mark.slow
def test_speed_ends_with_one_line_of_json(tmp_path, monkeypatch, capsys):
    argv = ["speed.py", "--tiny", "--runs", "1", "--threads", "1", "--out", str(tmp_path / "speed.json")]
    monkeypatch.setattr(sys, "argv", argv)
    speed.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"encode_ms", "decode_ms_10", "stage_b_speedup", "stage_a_speedup"} < set(last)
    record = json.loads((tmp_path / "speed.json").read_text())
    assert {row["engine"] for row in record["link"]} >= {"onnx", "torch"} and record["cold_start_s"] > 0
    for row in record["link"]:
        assert row["step_ms"] < row["decode_ms_10"] and (row["engine"] == "openvino" or row["peak_mib"] > 50)
    assert all(row["max_difference_fp32"] < 1e-4 for row in record["networks"])  # the same networks


def test_streets_and_photos_are_averaged_by_model(tmp_path, monkeypatch):
    names = ["semcast@start", "semcast@street", "semcast@mixed"]
    for i, data in enumerate(("street", "street_photos")):
        rows = [
            {
                "system": name,
                "image": "i",
                "image_sha256": str(image),
                "snr_db": snr,
                "draw": 0,
                "lpips": 0.1 * j + image,
                "dists": 0.2,
                "psnr_db": 20.0,
            }
            | {"delta_e": 3.0 + i, "shift_red": 2.0 * snr - 3.0, "shift_green": -1.0 * j, "shift_blue": 0.0}
            for j, name in enumerate(names)
            for image in (0, 1)
            for snr in (1.0, 10.0)
        ]
        (tmp_path / f"{data}.json").write_text(json.dumps({"systems": dict.fromkeys(names, ""), "rows": rows}))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    lines = bench_tables.street().splitlines()
    cells = "0.600 / 0.600 | 0.200 / 0.200 | 20.00 / 20.00 | 3.00 / 3.00 | +8.0, -1.0, +0.0"
    assert lines[3] == f"| street | then streets only | {cells} |"
    assert (
        lines[5].startswith("| photos | `small` of 0.1.0: photos and streets | 0.500 / 0.500 |")
        and "| 4.00 / 4.00 |" in lines[5]
    )
    assert lines[-1].startswith("2 frames of CamVid's test set, 2 Kodak photos (centre 512x512), 1 draw;")


def test_a_bench_with_labels_shows_miou(tmp_path, monkeypatch):
    row = {
        "system": "downscale",
        "image": "i",
        "image_sha256": "a",
        "snr_db": 1.0,
        "draw": 0,
        "headline": True,
        "uses": 72,
        "side_bits": 72,
        "lost": False,
    }
    row |= {name: 1.0 for name in ("lpips", "psnr_db", "lpips_vgg", "dists", "ms_ssim", "delta_e", "top1_in_top5")}
    row |= {"segments": [[1, 4], [2, 4]] + [[0, 0]] * 9, "segments_original": [[4, 4], [2, 4]] + [[0, 0]] * 9}
    row |= {"size": None, "channel": "awgn", "channel_options": {}}
    rows = [row | {"snr_db": snr} for snr in (1.0, 5.0, 10.0)]
    record = {"protocol": 1, "systems": {"downscale": ""}, "rows": rows}
    (tmp_path / "camvid.json").write_text(json.dumps(record))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    head, _, line, originals, *_ = bench_tables.bench_camvid_headline().splitlines()
    assert (
        head.endswith("| mIoU |")
        and line.endswith("| 0.38 / 0.38 / 0.38 |")
        and originals == "| the originals | | | | | | 0.75 |"
    )


def test_bad_input_of_a_script_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks/measure.py", "ablation", "--kodak", "kodak", "--no-pages"])
    with pytest.raises(SystemExit) as stop:
        scripts.script(measure.main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "measure: semcast@noisy needs --model noisy=DIR\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--model", "noisy"])
    with pytest.raises(SystemExit):
        scripts.script(measure.main)
    assert capsys.readouterr().err == "measure: --model noisy: write NAME=DIR\n"
