"""Training of the rivals: it learns, goes on where it stopped, and says whether it had flattened."""

import json
import math
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peer_parts import street, tiny, untaught
from PIL import Image
from tiny import photo

import train_peers
from semcast.bench.peers import parts, training
from semcast.bench.peers.parts import PARTS, load_part
from semcast.files import load_arrays


@pytest.fixture
def school(tmp_path, monkeypatch):
    """Tiny networks, two labelled pictures: a function that trains a part."""
    for name, part in PARTS.items():
        monkeypatch.setitem(parts.PARTS, name, tiny(part))
    pictures, labels = tmp_path / "photos", tmp_path / "labels"
    pictures.mkdir(), labels.mkdir()
    for i in range(2):
        Image.fromarray(photo(96, 128, i)).save(pictures / f"street_{i}.png")
        Image.fromarray(street(96, 128, i)).save(labels / f"{i}.png")
    monkeypatch.setattr(train_peers, "load_cascade", lambda *_: SimpleNamespace(stage_a=untaught(parts.STAGE_A)))
    monkeypatch.setattr(train_peers, "STATISTICS", 2)
    monkeypatch.setattr("semcast.bench.peers.latents.CROP", 64)
    torch.set_num_threads(1)

    def train(part: str, out: str = "out", *more: str) -> int:
        length = () if "--minutes" in more or part in ("maps", parts.STAGE_A) else ("--steps", "6")
        flags = ("--labels", labels, "--out", tmp_path / out, "--batch", 2, "--latents", 4, "--device", "cpu")
        return train_peers.main([str(word) for word in (part, pictures, *flags, *length, *more)])

    return train


@pytest.mark.slow
def test_every_part_trains_and_goes_on_where_it_stopped(school, tmp_path, monkeypatch, capsys):
    learn = training.learn
    for part in (*PARTS, "maps"):
        assert school(part) == 0
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert said["out"] == str(tmp_path / "out" / f"{part}.safetensors")
        if part == "maps":
            assert said["pictures"] == 2
        if part in ("maps", parts.STAGE_A):
            continue
        assert said["steps"] == 6 and said["pictures"] == 2 and math.isfinite(said["loss"])
        load_part(part, folder=tmp_path / "out")
        record = parts.training_record(part, tmp_path / "out")
        assert record["curve"] == said["curve"] and len(said["curve"]) == 6 and record["flattened"] is None
        # The same, interrupted after three steps: the same weights.
        for name in (parts.STAGE_A, "ae8", "ae16", "ae32"):
            if (source := tmp_path / "out" / f"{name}.safetensors").exists():
                (tmp_path / "again").mkdir(exist_ok=True)
                (tmp_path / "again" / source.name).write_bytes(source.read_bytes())
        monkeypatch.setattr(train_peers, "learn", lambda *a, **k: learn(*a, **{**k, "stop": lambda step: step == 3}))
        (tmp_path / "again" / f"{part}.safetensors").unlink(missing_ok=True)
        assert school(part, "again") == 130
        assert f"stopped after 3 steps of {part}; the same command goes on" in capsys.readouterr().err
        monkeypatch.setattr(train_peers, "learn", learn)
        assert school(part, "again") == 0
        first, second = (tmp_path / out / f"{part}.safetensors" for out in ("out", "again"))
        a, b = load_arrays(first), load_arrays(second)
        assert all(np.array_equal(a[key], b[key]) for key in a), part
        assert not (tmp_path / "again" / f"{part}.checkpoint.safetensors").exists()
    assert school("casc32") == 0 and "was there already" in capsys.readouterr().out


def test_training_learns(tmp_path):
    """A tiny denoiser of a latent that hardly varies, and a checkpoint that a signal leaves."""
    network = tiny(PARTS["diffsc32"]).build()
    z = torch.ones(8, 9, 8, 8)
    loss = train_peers.denoiser_loss(lambda generator: {"z": z}, 0, "cpu")
    progress, ended = training.learn(network, loss, tmp_path / "nowhere", lr=4e-3, key={}, steps=120)
    assert ended and progress.step == 120
    first = np.mean(progress.losses[:20])  # of the last 100
    assert np.mean(progress.losses[-20:]) < 0.7 * first and not network.training
    assert [step for step, *_ in progress.curve] == list(range(3, 121, 3))
    assert progress.curve[-1][2] == pytest.approx(np.mean(progress.losses[-3:]), abs=1e-6)


@pytest.mark.parametrize("points, fallen", [([1.0] * 36 + [0.995] * 4, 0.005), ([1.0] * 36 + [0.9] * 4, 0.1)])
def test_a_curve_has_flattened_if_its_last_fifth_hardly_fell(points, fallen):
    curve = [[i, 1.0 * i, loss] for i, loss in enumerate(points)]
    assert training.fall(curve) == pytest.approx(fallen)
    assert training.flattened(curve) == (fallen < 0.01)
    assert training.flattened(curve[1:]) is None


def test_a_signal_leaves_a_checkpoint_and_the_clock_goes_on(school, tmp_path, monkeypatch, capsys):
    assert school(parts.STAGE_A) == 0 and school("ae8", "out", "--minutes", "0.002") == 0
    loss = train_peers.denoiser_loss

    def killed(*arguments):
        inner = loss(*arguments)

        def once(network, step):
            assert step < 2, "the signal was not heeded"
            if step == 1:
                signal.raise_signal(signal.SIGTERM)
            return inner(network, step)

        return once

    monkeypatch.setattr(train_peers, "denoiser_loss", killed)
    assert school("img2img", "out", "--minutes", "5") == 130
    path = tmp_path / "out" / "img2img.checkpoint.safetensors"
    record = json.loads(parts.read_metadata(path)["state"])
    assert record["step"] == 2 and 0 < record["seconds"] < 300
    assert school("img2img", "out", "--minutes", "5", "--seed", "1") == 2
    assert "is of a run with another seed; delete it, or choose another --out" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-50])
    assert school("img2img", "out", "--minutes", "5") == 2


def test_mistakes_of_training_are_one_line(school, tmp_path, capsys):
    for part, more, error in (
        ("ae32", (), "stage_a.safetensors is missing"),
        ("diffsc32", (), "stage_a.safetensors is missing"),
        ("ae8", ("--batch", "0"), "--batch and --latents must be above 0"),
        ("ae8", ("--minutes", "0"), "--minutes or --steps is needed, and must be above 0"),
    ):
        assert school(part, "empty", *more) == 2
        message = capsys.readouterr().err
        assert error in message and message.count("\n") == 1
    argv = ["maps", str(tmp_path / "photos"), "--out", str(tmp_path / "empty")]
    assert train_peers.main(argv) == 2 and "learns from labels" in capsys.readouterr().err
    assert train_peers.main([*argv, "--labels", str(tmp_path / "photos")]) == 2
