"""Expected errors: they follow what was lost, lie in their range, and reach the user as a map and as numbers."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import photo, tiny_cascade

import confidence as calibration
from semcast import Link, load_model, read_image
from semcast.bench.ours import enhancement_version, model_version
from semcast.cascade.checkpoint import save_model
from semcast.cascade.models import WEIGHTS
from semcast.channels.base import Received
from semcast.images import PHOTO, to_image
from semcast.metrics.confidence import (
    CELL,
    COLOURS,
    FEATURES,
    FILE,
    SHOWN_MAX,
    cell_means,
    expected_error,
    features,
    figures,
    heat_map,
    load_weights,
    true_error,
)
from semcast.modulation.modems import demodulate

WEIGHTS_OF_TESTS = dict.fromkeys(FEATURES, 0.1) | {"one": 1.0}


@pytest.fixture(scope="module")
def small() -> Link:
    return Link(load_model("small", engine="onnx"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return read_image(PHOTO)[..., 200:456, 100:356]


def errors_of(link: Link, received: Received, header, weights=None) -> np.ndarray:
    picture = link.receive(received, header)
    known = demodulate(link.modems, [(received, header)])
    return expected_error(picture, *known, link.engine, weights or load_weights("small", link.engine.encoder_id))


# What the shipped formula says


def test_where_symbols_are_lost_more_error_is_expected(small, image):
    header, x = small.send(image)
    whole = small.propagate(x, 10, seed=1)
    _, rows, columns = header.latent_shape
    lost = np.zeros((8, rows, columns), bool)
    lost[:, :3, :3] = True  # the upper left quarter of the picture
    noise_var = np.where(lost.reshape(1, -1), np.inf, whole.noise_var).astype(np.float32)
    part = Received(np.where(lost.reshape(1, -1), 0, whole.y), whole.h, noise_var)
    before, after = errors_of(small, whole, header), errors_of(small, part, header)
    assert before.shape == after.shape == (8, 8)
    assert (after[:4, :4] > before[:4, :4]).mean() > 0.7 and after[:4, :4].mean() > 1.2 * before[:4, :4].mean()
    assert after[:4, :4].mean() / before[:4, :4].mean() > 1.2 * after[5:, 5:].mean() / before[5:, 5:].mean()


def test_less_error_is_expected_of_better_channels_and_of_more_rungs(small, image):
    header, x = small.send(image)
    means = [errors_of(small, small.propagate(x, snr_db), header).mean() for snr_db in (-3, 3, 9, 20)]
    assert means == sorted(means, reverse=True) and means[0] > 1.2 * means[-1]
    header, x = small.send(image, rungs=(1, 24))
    assert errors_of(small, small.propagate(x, 20), header).mean() < 0.8 * means[-1]


def test_the_shipped_formula_is_of_the_shipped_model():
    held = json.loads((WEIGHTS / "small" / FILE).read_text())
    assert held["model"] == f"{model_version('small')}, {enhancement_version('small')}", "benchmarks/confidence.py"
    assert min(weight for name, weight in held["weights"].items() if name != "one") >= 0
    results = json.loads((calibration.ROOT / "benchmarks" / "results" / "confidence.json").read_text())
    assert {key: results[key] for key in held} == held
    for row in results["rows"]:
        if row["channel"] == "awgn":
            assert row["spearman"] >= 0.6 and row["auc"] >= 0.8, row


# Contract


def test_means_over_cells_are_weighted_by_area():
    rng = np.random.default_rng(0)
    values = rng.random((100, 70), np.float32)
    means = cell_means(values, (100, 70), (100, 70))
    assert means.shape == (4, 3)
    assert means[1, 1] == pytest.approx(values[32:64, 32:64].mean(), abs=1e-5)
    assert means[3, 2] == pytest.approx(values[96:, 64:].mean(), abs=1e-5)
    coarse = rng.random((6, 6), np.float32)  # of 42.67 pixels each
    fine = coarse.repeat(128, axis=0).repeat(128, axis=1)[:690, :]  # in thirds of pixels, cut to 230 rows
    wanted = cell_means(fine, (690, 768), (690, 768), cell=3 * CELL)
    assert np.allclose(cell_means(coarse, (256, 256), (230, 256)), wanted, atol=1e-5)
    assert np.allclose(cell_means(np.ones((3, 5)), (128, 192), (120, 190)), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The tiny model with a formula."""
    path = tmp_path_factory.mktemp("confidence")
    save_model(tiny_cascade(), path)
    encoder_id = f"{load_model(path, engine='onnx').encoder_id:04x}"
    (path / FILE).write_text(json.dumps({"encoder_id": encoder_id, "weights": WEIGHTS_OF_TESTS}))
    return path


def test_both_engines_expect_the_same(folder):
    picture, found = to_image(photo(120, 190)), []
    for engine in ("onnx", "torch"):
        link = Link(load_model(folder, engine=engine))
        header, x = link.send(picture)
        received = link.propagate(x, 5)
        result = np.random.default_rng(0).random(picture.shape, np.float32)  # the same for both
        known = demodulate(link.modems, [(received, header)])
        maps = features(result, *known, link.engine)
        assert tuple(maps) == FEATURES and all(m.shape == (4, 6) and np.isfinite(m).all() for m in maps.values())
        found.append(expected_error(result, *known, link.engine, load_weights(folder, link.engine.encoder_id)))
        assert np.array_equal(found[-1], expected_error(result, *known, link.engine, WEIGHTS_OF_TESTS))
    assert np.allclose(*found, rtol=1e-3) and 0 <= found[0].min() < found[0].max() <= 255


def test_the_map_and_the_figures_show_the_errors():
    errors = np.array([[0.0, SHOWN_MAX, 10], [2, 3, 1000]])
    drawn = heat_map(errors, (50, 90))
    assert drawn.shape == (50, 90, 3) and drawn.dtype == np.uint8
    assert drawn[31, 31].tolist() == list(COLOURS[0]) and drawn[0, 32].tolist() == list(COLOURS[-1])
    assert drawn[49, 89].tolist() == list(COLOURS[-1])
    bright = heat_map(np.linspace(0, SHOWN_MAX, 99)[None], (1, 99 * CELL))[0, ::CELL] @ np.array([0.21, 0.72, 0.07])
    assert (np.diff(bright) > 0).all()
    told = figures(np.arange(40.0).reshape(5, 8))
    assert told["error_mean"] == 19.5 and told["error_worst_tenth"] == 37.5 and told["errors"][4][7] == 39
    assert np.allclose(true_error(np.zeros((1, 3, 50, 90)), np.ones((1, 3, 50, 90))), 255)


# Calibration


def test_a_formula_is_found_again_from_its_own_errors():
    rng, count = np.random.default_rng(0), 4000
    truth = {name: weight for name, weight in zip(FEATURES, rng.random(len(FEATURES)))}
    found = []
    for _ in range(4):
        x = rng.random((count, len(FEATURES)))
        x[:, 0] = 1
        error = np.exp(x @ np.array([*truth.values()]) + rng.normal(0, 0.1, count)) - calibration.OFFSET
        found.append(calibration.Cells(x, error))
    fitted = calibration.fit(found)
    assert all(fitted[name] == pytest.approx(truth[name], abs=0.05) for name in FEATURES)
    told = calibration.judge(found, fitted)
    assert told["spearman"] > 0.95 and told["auc"] > 0.97 and told["ece"] < 0.01
    worse = [cells._replace(error=rng.permutation(cells.error)) for cells in found]
    told = calibration.judge(worse, fitted)
    assert abs(told["spearman"]) < 0.05 and told["auc"] == pytest.approx(0.5, abs=0.05) and told["ece"] > 0.1


def test_calibration_writes_a_formula_and_goes_on_where_it_stopped(folder, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    (model / FILE).unlink()
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(photo(96, 128, i)).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.setattr(calibration, "KODAK_SIDE", 96)
    sources = [word for flag in ("--photos", "--kodak", "--streets") for word in (flag, tmp_path / "photos")]
    out = tmp_path / "out.json"
    argv = ["confidence.py", *sources, "--limit", 2, "--model", model, "--work", tmp_path / "work", "--out", out]
    monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
    calibration.main()
    first = json.loads(out.read_text())
    assert load_weights(model, int(first["encoder_id"], 16)) == first["weights"]
    assert len(first["rows"]) == 2 * len(calibration.MEASURED_ON) * len(calibration.SNRS_DB)
    monkeypatch.setattr(calibration, "observe", None)  # all is kept
    calibration.main()
    assert json.loads(out.read_text()) == first
    capsys.readouterr()


# The command line


@pytest.fixture
def here(folder, cli, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(folder)
    Image.fromarray(photo(96, 130)).save("a.png")
    assert cli("send", "a.png", "-o", "x.sem", "--model", "tiny") == (0, "", "")
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 10) == (0, "", "")
    return tmp_path


RECEIVE = ("receive", "y.sem", "-o", "p.png", "--model", "tiny", "--confidence", "map.png")


def test_receive_writes_a_map_and_says_the_figures(here, cli):
    code, out, err = cli(*RECEIVE, "--json")
    row = json.loads(out)
    assert (code, err) == (0, "") and (row["picture"], row["map"], row["cell_pixels"]) == ("p.png", "map.png", CELL)
    errors = np.array(row["errors"])
    assert errors.shape == (3, 5) and errors.min() > 0 and row["error_worst_tenth"] >= row["error_mean"] > 0
    drawn = np.asarray(Image.open("map.png"), int)
    assert np.abs(drawn - heat_map(errors, (96, 130))).max() <= 1  # the numbers are rounded
    alone = ("receive", "y.sem", "-o", "q.png", "--model", "tiny")
    assert cli(*alone) == (0, "", "") and Path("q.png").read_bytes() == Path("p.png").read_bytes()
    code, told, err = cli(*RECEIVE, "--json")
    assert (code, told) == (2, "") and "p.png exists" in err
    assert cli(*RECEIVE, "--json", "--force") == (0, out, "")
    assert cli(*RECEIVE, "--force") == (0, "", "")


def test_recordings_have_maps_too(here, cli):
    assert cli("send", "a.png", "-o", "x.wav", "--model", "tiny", "-q") == (0, "", "")
    code, out, _ = cli("receive", "x.wav", *RECEIVE[2:], "-q", "--json")
    heard, told = map(json.loads, out.splitlines())
    assert code == 0 and heard["recording"] == "x.wav" and told["picture"] == "p.png"
    assert Image.open("map.png").size == (130, 96)


def test_what_cannot_be_done_is_refused_in_one_line(here, folder, cli):
    def refused(told: str, *argv) -> None:
        code, out, err = cli(*argv)
        assert (code, out) == (2, "") and told in err and err.count("\n") == 1 and not Path("p.png").exists()

    Path("map.png").write_bytes(b"mine")
    refused("map.png exists; choose another name, or --force to replace it", *RECEIVE)
    refused("y.sem is an input and would be", *RECEIVE[:-1], "y.sem", "--force")
    refused("pictures are written as", *RECEIVE[:-1], "map.txt")
    refused("--confidence names a file", *RECEIVE[:-1], "-")
    refused("--confidence and -o both name p.png", *RECEIVE[:-1], "p.png")
    refused("of frames, give --confidence MAP.png with it", *RECEIVE[:-2], "--json")
    assert Path("map.png").read_bytes() == b"mine"
    Path("map.png").unlink()
    assert cli("send", "a.png", "-o", "p.sem", "--mode", "digital", "--bytes", 99, "--model", "tiny") == (0, "", "")
    refused("--confidence is calibrated for analog symbols", "receive", "p.sem", *RECEIVE[2:])
    shutil.copytree(folder, "bare")
    Path("bare", FILE).unlink()
    bare = ("receive", "y.sem", "-o", "p.png", "--model", "bare", "--confidence", "map.png")
    refused("model 'tiny' has no calibration for --confidence; make one with benchmarks/confidence.py", *bare)
    Path("bare", FILE).write_text("{}")
    refused("confidence.json is no calibration for --confidence", *bare)
    Path("bare", FILE).write_text(json.dumps({"encoder_id": "ffff", "weights": WEIGHTS_OF_TESTS}))
    refused("is of encoder ffff", *bare)
    assert not Path("map.png").exists()
