"""The scripts in benchmarks/ run, their rows are what they say, and the ignorant receiver is told one variance."""

import json
import math
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image
from safetensors.torch import save_file
from test_channel import gaussian, seeded

import semcast
from semcast import packet
from semcast.bench import harness, unit
from semcast.bench.pictures import Pictures
from semcast.channel import find_channel
from semcast.errors import InputError
from semcast.lpips import LPIPS
from semcast.presets import PRESETS
from semcast.receiver import condition

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import bench_tables  # noqa: E402
import crossing  # noqa: E402
import keep  # noqa: E402
import packet_gain  # noqa: E402
import quality  # noqa: E402
import records  # noqa: E402
import robust  # noqa: E402
import speed  # noqa: E402
import tables  # noqa: E402
import train_rate  # noqa: E402
import train_speed  # noqa: E402

PHOTO = Path(semcast.__file__).with_name("assets") / "astronaut.jpg"


@pytest.fixture
def lpips(tmp_path) -> Path:
    """A folder of LPIPS weights of our own making."""
    torch.manual_seed(0)
    save_file(
        {k: v.abs() if k.startswith("lin") else v for k, v in LPIPS("alex").state_dict().items()}, tmp_path / "lpips_alex.safetensors"
    )
    return tmp_path


def test_crossing_runs(tiny_model, lpips, tmp_path, monkeypatch, capsys):
    out, png = tmp_path / "crossing.json", tmp_path / "crossing.png"
    argv = ["crossing.py", PHOTO, "--snr", -5, 10, "--limit", 1, "--draws", 1, "--crop", 128, "--model", tiny_model, "--lpips", lpips]
    monkeypatch.setattr(sys, "argv", [str(a) for a in (*argv, "--out", out, "--plot", png)])
    crossing.main()
    record = json.loads(out.read_text())
    assert record["schema"] == 1 and record["command"].startswith("python benchmarks/crossing.py astronaut.jpg --snr -5 10 ")
    assert {"commit", "torch", "model", "networks"} <= set(record) and str(tmp_path) not in out.read_text()
    groups = tables.crossing_rows(record)
    expected = {(system, snr, error) for snr in (-5, 10) for system, error in tables.CROSSING} | {("mean colour", None, 0)}
    expected |= {("digital-fixed", snr, 0) for snr in crossing.CLIFF_DB}
    expected |= {(system, 10, error) for system in ("analog", "digital") for error in crossing.ERRORS_DB}
    assert set(groups) == expected and all(len(rows) == 1 for rows in groups.values())
    colour = groups["mean colour", None, 0][0]
    for (system, _, _), (row,) in groups.items():
        if system == "analog":
            assert not row["lost"] and row["scheme"] is None
        assert not row["lost"] or row["lpips"] == colour["lpips"]
        assert row["outage"] == (row["lost"] or row["lpips"] >= colour["lpips"])
    assert groups["digital-fixed", -5, 0][0]["lost"]  # the cliff
    assert groups["digital", 10, 0][0]["scheme"] == groups["digital-fixed", 10, 0][0]["scheme"]
    assert groups["digital", 10, 0][0]["psnr_db"] == groups["digital-fixed", 10, 0][0]["psnr_db"]
    assert Image.open(png).size == (1200, 460)

    before, touched = capsys.readouterr().out, []
    monkeypatch.setattr(crossing, "measure_picture", lambda *_: touched.append(1))
    crossing.main()  # the same command goes on where it stopped: at the end
    assert not touched and capsys.readouterr().out.splitlines()[-1] == before.splitlines()[-1]


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


@pytest.mark.parametrize("only", ["plain", "recompute"])
def test_a_training_step_is_timed_with_its_memory(only, monkeypatch, capsys):
    argv = ["train_speed.py", "--size", "tiny", "--crop", "64", "--batch", "1", "--runs", "1", "--only", only]
    monkeypatch.setattr(sys, "argv", argv)
    train_speed.main()
    row = json.loads(capsys.readouterr().out)
    assert row["recompute"] == (only == "recompute") and row["peak_gib"] > 0.1
    assert row["projected_minutes"] == pytest.approx(15_000 * row["step_ms"] / 60e3)


def test_a_training_run_says_how_well_it_used_the_machine(cli, tiny_model, tmp_path, monkeypatch, capsys):
    command = ["train", "--preset", "scsic-512", "--init", tiny_model, "--data", PHOTO, "--out", tmp_path / "run"]
    settings = [word for setting in ("steps=20", "crop=64", "batch=2", "window=0") for word in ("--set", setting)]
    code, _, error = cli(*command, *settings)
    assert code == 0, error
    monkeypatch.setattr(sys, "argv", ["train_rate.py", str(tmp_path / "run")])
    train_rate.main()
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert record["steps"] == 17 and 0 < record["step_s"] < rows[-1]["time_s"] and 0 <= record["share_waiting"] < 1
    assert record["tflops"] == pytest.approx(record["tflop"] / record["step_s"]) and 0 < record["share_of_matmul"] < 1
    double = train_rate.count(tmp_path / "run" / "model", replace(PRESETS["scsic-512"], crop=64, batch=4, window=0), None, "cpu")
    assert double / 1e12 == pytest.approx(2 * record["tflop"], rel=0.01)  # twice the pictures
    sides = [8, 16, 24]  # what a step costs depends on its draws: the mean counts
    monkeypatch.setattr(train_rate, "COUNTED", len(sides))
    monkeypatch.setattr(train_rate, "backward", lambda state, step, *_: torch.ones(sides[step], 8) @ torch.ones(8, 8))
    flops = train_rate.count(tmp_path / "run" / "model", replace(PRESETS["scsic-512"], crop=64, batch=1, window=0), None, "cpu")
    assert flops == np.mean([2 * side * 8 * 8 for side in sides])
    monkeypatch.setattr(sys, "argv", ["train_rate.py", str(tmp_path)])
    with pytest.raises(InputError, match="holds no training run"):
        train_rate.main()


def test_a_bench_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    for folder, seed in (("a", 0), ("b", 1)):  # two pictures of one name
        (tmp_path / folder).mkdir()
        Image.fromarray(photo(96, 128, seed=seed)).save(tmp_path / folder / "0.png")
    setting, pictures = unit.Setting(headline=(1.0, 10.0)), Pictures([tmp_path / "a", tmp_path / "b"])
    harness.bench(["downscale", "jpeg2000-capacity"], pictures, [1.0, 10.0], 2, tmp_path, setting)
    rows = harness.read_rows(tmp_path / "rows.jsonl")
    cut = next(i for i, row in enumerate(rows) if row["system"] == "jpeg2000-capacity")
    with pytest.raises(InputError, match="^jpeg2000-capacity lacks 1 rows that others have; finish the bench first$"):
        keep.kept(rows[:cut] + rows[cut + 1 :])

    monkeypatch.setattr(sys, "argv", ["keep.py", str(tmp_path), "--out", str(tmp_path / "bench_kodak.json")])
    keep.main()
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    (line,) = [line for line in bench_tables.bench().splitlines() if line.startswith("| `downscale` |")]
    psnr = [np.mean([row["psnr_db"] for row in rows if (row["system"], row["snr_db"]) == ("downscale", snr)]) for snr in (1.0, 10.0)]
    assert f"| {psnr[0]:.2f} / {psnr[1]:.2f} | 0 / 0 % | 72 |" in line
    assert "2 pictures (whole), 2 draws, 72 channel uses each, awgn" in bench_tables.bench()
    assert "At 1 / 10 dB." in bench_tables.bench_headline() and "`jpeg2000-capacity`" in bench_tables.bench_headline()


def test_every_rate_of_a_bench_is_kept_and_shown(tmp_path, monkeypatch):
    Image.fromarray(photo(96, 128)).save(tmp_path / "0.png")
    for ratio in (683, 96):
        harness.bench(["downscale"], Pictures([tmp_path / "0.png"]), [1.0, 10.0], 1, tmp_path, unit.Setting(uses=f"1/{ratio}", headline=()))
        argv = ["keep.py", str(tmp_path), "--uses", f"1/{ratio}", "--out", str(tmp_path / f"rate_{ratio}.json")]
        monkeypatch.setattr(sys, "argv", argv)
        keep.main()
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(bench_tables, "RATE_RATIOS", (683, 96))
    lines = [line.split(" | ") for line in bench_tables.bench_rate().splitlines() if line.startswith("| `downscale` |")]
    assert [line[1] for line in lines] == ["1/683", "1/96"]
    (few, more), (low, high) = ([int(line[2]) for line in lines], [float(line[-1].split(" / ")[1].rstrip(" |")) for line in lines])
    assert few <= 54 < more <= 384 and low < high  # of 3 * 96 * 128 numbers
    with pytest.raises(InputError, match="there are no rows"):
        monkeypatch.setattr(sys, "argv", [*argv[:3], "1/12", *argv[4:]])
        keep.main()


def test_every_point_of_crossing_is_measured_once():
    found = list(crossing.points([-5, 0, 1, 5, 10, 15, 20]))
    assert max(Counter(found).values()) == 1
    assert {error for system, snr, error in found if (system, snr) == ("digital", 10)} == set(crossing.ERRORS_DB)


def test_curves_cross_where_straight_lines_do():
    assert tables.crossings([0, 10, 20], [1.0, 1.0, 1.0], [3.0, 2.0, 0.0]) == [15.0]
    assert tables.crossings([0, 10], [1.0, 1.0], [2.0, 3.0]) == []


def test_tables_of_missing_results_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    assert tables.tables()["crossing"] == "Not measured yet: `crossing.json` is missing."


@pytest.mark.parametrize(
    "name, options", [("awgn", {}), ("rayleigh-fast", {}), ("erasure", {"rate": 0.2}), ("tdl-c", {"estimation": "ls"})]
)
def test_the_ignorant_receiver_is_told_one_variance(name, options):
    x = gaussian(2, 1152)
    received = find_channel(name)(x, 10.0, seeded(1, 2), **options)
    told = robust.one_variance(received)
    assert told.noise_var.shape == told.h.shape == (2, 1) and (told.h == 1).all()
    code, noise = condition(told, 1.0, (16, 12, 12), noise_aware=True)
    assert all(len(row.unique()) == 1 for row in noise)  # no map
    assert torch.allclose(code.flatten(1) * (1 + told.noise_var), torch.cat([told.y.real, told.y.imag], dim=1), rtol=1e-4)  # one weight
    arrived = received.noise_var.isfinite().expand(x.shape)
    error = (told.y - x).abs().square()
    for row in range(2):
        mean = (received.noise_var / received.h.abs().square()).expand(x.shape)[row][arrived[row]].mean()
        assert told.noise_var[row].item() == pytest.approx(mean.item(), rel=1e-4)
        assert (told.y[row][~arrived[row]] == 0).all()
        if name in ("awgn", "erasure"):
            assert told.noise_var[row].item() == pytest.approx(0.1) and error[row][arrived[row]].mean() == pytest.approx(0.1, rel=0.2)
            weight = (x[row].conj() * told.y[row]).real.sum() / told.y[row].abs().square().sum()  # the best single one
            assert weight.item() == pytest.approx(1 / 1.1, rel=0.03)


def test_the_blind_receiver_is_a_model_that_is_not_told(tiny_model, lpips, tmp_path, monkeypatch, capsys):
    out, argv = tmp_path / "blind.json", ["robust.py", PHOTO, "--crop", 128, "--draws", 2, "--lpips", lpips, "--blind"]
    run = lambda model: monkeypatch.setattr(sys, "argv", [str(a) for a in (*argv, "--model", model, "--out", out)]) or robust.main()
    blind = tmp_path / "model"
    shutil.copytree(tiny_model, blind)
    for told in (True, False):
        (blind / "config.json").write_text(json.dumps(json.loads((blind / "config.json").read_text()) | {"noise_aware": told}))
        if told:
            with pytest.raises(InputError, match="is told the noise; --blind is for models that are not"):
                run(blind)
            assert not out.exists()
    run(blind)
    rows = json.loads(out.read_text())["rows"]
    assert [row["condition"] for row in rows[::2]] == list(robust.BLIND) and {row["draw"] for row in rows} == {0, 1}


def test_speed_ends_with_one_line_of_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", "--tiny", "--runs", "1", "--out", str(tmp_path / "speed.json")])
    speed.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {"encode_ms", "decode_ms_10", "decode_ms_2", "stage_b_speedup", "stage_a_speedup"}
    assert all(value > 0 for value in last.values())
    record = json.loads((tmp_path / "speed.json").read_text())
    (row,) = record["link"]
    assert row["step_ms"] < row["decode_ms_10"] and row["peak_mib"] > 100
    assert row["tflops"] == pytest.approx(row["tflop"] / row["decode_ms_10"] * 1e3)
    assert row["share_of_peak"] == pytest.approx(row["tflops"] / record["cpu_matmul_tflops"])


def test_streets_and_photos_are_averaged_by_model(tmp_path, monkeypatch):
    names = ["semcast", "semcast@out/street/model", "semcast@out/mixed/model"]
    for i, data in enumerate(("street", "photos")):
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
        (tmp_path / f"street_{data}.json").write_text(json.dumps({"systems": dict.fromkeys(names, ""), "rows": rows}))
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    lines = bench_tables.street().splitlines()
    assert lines[3] == "| street | then streets only | 0.600 / 0.600 | 0.200 / 0.200 | 20.00 / 20.00 | 3.00 / 3.00 | +8.0, -1.0, +0.0 |"
    assert lines[5].startswith("| photos | `small`: photos and streets | 0.500 / 0.500 |") and "| 4.00 / 4.00 |" in lines[5]
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
    record = {"protocol": 1, "size": None, "channel": "awgn", "channel_options": {}, "systems": {"downscale": ""}, "rows": [row]}
    (tmp_path / "bench_camvid.json").write_text(json.dumps(record))
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    head, _, line, originals, *_ = bench_tables.bench_camvid_headline().splitlines()
    assert head.endswith("| mIoU |") and line.endswith("| 0.38 |") and originals == "| the originals | | | | | | 0.75 |"
    assert "versions and hashes: `bench_camvid.json`" in bench_tables.bench_camvid()


def test_bad_input_of_a_script_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.jsonl").write_text('{"no": "row"}\n')
    monkeypatch.setattr(sys, "argv", ["benchmarks/keep.py", str(tmp_path), "--out", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit) as stop:
        quality.run(keep.main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"keep: {tmp_path}/rows.jsonl does not hold rows of a bench; choose another --out\n"
