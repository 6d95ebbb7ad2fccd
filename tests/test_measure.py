"""benchmarks/measure.py: it measures again what changed, and nothing else, and goes on where it stopped."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_tables import row_of
from tiny import photo, tiny_cascade

import measure
from semcast.bench import harness, ours, records, systems, unit, workers
from semcast.bench.experiments import Experiment, Run
from semcast.bench.peers.parts import PARTS, STAGE_A
from semcast.cascade import models
from semcast.cascade.checkpoint import save_model
from semcast.errors import InputError
from semcast.metrics.classifier import WIDTH, kernel_distance

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
    ours.model_version.cache_clear()
    systems.find_system.cache_clear()
    ours.load_link.cache_clear()
    ours.load_engine.cache_clear()
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
    ours.model_version.cache_clear()
    systems.find_system.cache_clear()


def new_weights(folder: Path) -> None:
    """Put another model where `small` is."""
    save_model(tiny_cascade(seed=5), folder)
    for remembered in (ours.model_version, ours.load_link, ours.load_engine):
        remembered.cache_clear()


def of(record: dict, system: str) -> list[dict]:
    return [row for row in record["rows"] if row["system"] == system]


def test_rivals_without_weights_are_left_out_or_keep_their_rows(lab, peers, few_steps, tmp_path, monkeypatch, capsys):
    run = Run(systems=("semcast-1step", "diffsc"), snrs=(10.0,), headline=(10.0,))
    monkeypatch.setattr(measure, "EXPERIMENTS", {"tiny": replace(TINY, runs=(run,))})
    monkeypatch.setattr(measure, "OF_THE_PEERS", "tiny")
    nowhere = tmp_path / "none"
    advice = f"{nowhere / 'stage_a.safetensors'} is missing: `runs/peers.sh PHOTOS LABELS {nowhere}` trains "
    monkeypatch.setenv("SEMCAST_PEERS", str(nowhere))
    with pytest.raises(FileNotFoundError):  # no record
        lab()
    said = capsys.readouterr().err
    assert said.startswith(f"tiny is left out: {advice}") and said.count("\n") == 1

    monkeypatch.setenv("SEMCAST_PEERS", str(peers))
    first = lab()
    trained = json.loads((tmp_path / "results" / "peers_training.json").read_text())
    assert (
        trained["parts"].keys() == PARTS.keys() - {STAGE_A}
        and trained["parts"]["ae32"]["weights"] in first["systems"]["diffsc"]
    )

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
    assert found[0]["mean"] == pytest.approx(kernel_distance(originals, received)[0], abs=1e-6)
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


def test_a_run_may_have_fewer_pictures_than_its_experiment(lab, tmp_path, monkeypatch):
    runs = (Run(systems=("downscale",), snrs=(10.0,)), Run(systems=("mean-colour",), snrs=(10.0,), limit=1))
    monkeypatch.setattr(measure, "EXPERIMENTS", {"tiny": replace(TINY, runs=runs)})
    (tmp_path / "photos").mkdir()
    for i in range(2):
        shutil.copy(tmp_path / f"{i}.png", tmp_path / "photos")
    rows = lab("--kodak", tmp_path / "photos")["rows"]
    assert [row["system"] for row in rows] == ["downscale", "downscale", "mean-colour"]


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
    ours.model_version.cache_clear()
    save_model(tiny_cascade(seed=6), tmp_path / "small")  # not the model whose rows are half measured
    for remembered in (ours.load_link, ours.load_engine):
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
