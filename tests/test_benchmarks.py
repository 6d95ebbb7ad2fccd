"""The scripts in benchmarks/: what they measure beside the bench."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY_ENHANCEMENT, tiny_cascade

import asking
import measure
import packet_gain
import scripts
import speed
import train_rate
import train_speed
from semcast.cascade.checkpoint import save_model
from semcast.errors import InputError
from semcast.header import RUNGS, Header
from semcast.images import PHOTO
from semcast.modulation import packet
from semcast.modulation.reply import AGAIN_BELOW_DB
from semcast.training.config import PRESETS


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
