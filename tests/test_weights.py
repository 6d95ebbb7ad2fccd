"""Weights in 8 bits: what the storage keeps, what it costs, and frames that earlier weights sent."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_cascade

import semcast
from semcast import Link, load_model, read_image
from semcast.cascade.checkpoint import load_cascade, save_model
from semcast.cascade.eight_bit import SCALE, compressed, expanded
from semcast.cascade.models import WEIGHTS, count_parameters
from semcast.cascade.torch_engine import TorchEngine
from semcast.errors import InputError
from semcast.files import load_tensors, save_tensors
from semcast.images import PHOTO, to_image, to_pixels
from semcast.metrics.pixels import psnr_db

# All of protocol 4; of the encoder 82e1, but "older" of 99c5, whose base is that of 20d9 and 54ca, and "earlier" of dc0d.
FRAMES = Path(__file__).parent / "frames"


def test_each_number_is_kept_within_half_a_step_of_its_row():
    g = np.random.default_rng(0)
    matrix = (
        g.standard_normal((40, 3, 5, 5), np.float32) * np.logspace(-6, 3, 40, dtype=np.float32)[:, None, None, None]
    )
    matrix[7] = 0
    stored = compressed({"w": matrix, "b": g.standard_normal(40, np.float32), "n": np.array(3)})
    assert stored["w"].dtype == np.int8 and stored["w" + SCALE].shape == (40,)
    back = expanded(stored)
    assert back.keys() == {"w", "b", "n"} and back["n"] == 3
    largest = lambda rows: np.abs(rows).reshape(40, -1).max(axis=1)
    error, step = largest(back["w"] - matrix), largest(matrix) / 127
    assert (error <= 0.5001 * step).all() and (back["w"][7] == 0).all()
    assert np.array_equal(expanded(compressed(back))["w"], back["w"])  # storing again loses nothing


def test_a_model_in_8_bits_loads_as_any_other(tmp_path):
    cascade = tiny_cascade()
    save_model(cascade, tmp_path / "eight", torch.int8)
    save_model(cascade, tmp_path / "full")
    loaded = load_cascade(tmp_path / "eight")
    assert loaded.config == cascade.config
    assert count_parameters(tmp_path / "eight") == count_parameters(tmp_path / "full")
    for key, tensor in cascade.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key].float(), tensor.float(), atol=float(tensor.abs().max()) / 250)
    sizes = [sum(p.stat().st_size for p in (tmp_path / f).glob("*.safetensors")) for f in ("eight", "full")]
    assert sizes[0] < 0.5 * sizes[1]  # tiny networks are mostly vectors and file heads


def test_damaged_scales_are_refused_in_one_line(cli, tmp_path):
    save_model(tiny_cascade(), tmp_path, torch.int8)
    tensors = load_tensors(tmp_path / "stage_b.safetensors")
    name = next(key for key in tensors if key.endswith(SCALE))
    save_tensors(tensors | {name: tensors[name][:-1]}, tmp_path / "stage_b.safetensors")
    code, out, err = cli("run", PHOTO, "--snr", 10, "--model", tmp_path, "--out", tmp_path / "out")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "stage_b.safetensors" in err


def test_what_ships_is_small_and_in_8_bits():
    files = list((WEIGHTS / "small").glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 22.5e6 and len(files) == 5
    for file in files:
        kinds = {t.dtype for t in load_tensors(file).values() if t.squeeze().ndim >= 2}
        assert kinds == {torch.int8}, file.name


@pytest.mark.parametrize("name", ["sent", "arrived", "packet", "qam"])
def test_frames_of_this_encoder_are_received_by_every_later_version(name, cli, tmp_path):
    """Within 1 of 255 on average of what was received when the weights shipped (2 steps)."""
    out = tmp_path / "out.png"
    assert cli("receive", FRAMES / f"{name}.sem", "-o", out, "--steps", 2, "--engine", "onnx")[0] == 0
    seen, before = (np.asarray(Image.open(path), dtype=float) for path in (out, FRAMES / f"{name}.png"))
    assert seen.shape == before.shape == (128, 192, 3)
    assert np.abs(seen - before).mean() < 1


def test_frames_of_an_encoder_that_the_model_understands_are_received_as_well(cli, tmp_path):
    """Within 24 dB of what the model of their encoder made of them."""
    out = tmp_path / "out.png"
    assert cli("receive", FRAMES / "older.sem", "-o", out, "--steps", 2, "--engine", "onnx")[0] == 0
    seen, before = (to_image(np.asarray(Image.open(path))) for path in (out, FRAMES / "older.png"))
    assert psnr_db(seen, before) > 24


def test_a_frame_of_an_earlier_encoder_is_refused_in_one_line(cli, tmp_path):
    own = f"{load_model('small').encoder_id:04x}"
    told = f"the frame was sent with encoder dc0d, model 'small' has encoder {own}; receive it with the sender's model"
    assert cli("receive", FRAMES / "earlier.sem", "-o", tmp_path / "x.png")[::2] == (2, f"semcast: {told}\n")


def test_a_frame_of_an_earlier_protocol_is_refused_in_one_line(cli, tmp_path):
    told = f"{FRAMES / 'version3.sem'} is a frame of version 3; this semcast reads versions 4 to 6, so send it again"
    assert cli("receive", FRAMES / "version3.sem", "-o", tmp_path / "x.png")[::2] == (2, f"semcast: {told}\n")


def test_a_frame_of_an_unknown_encoder_is_refused():
    link = Link(load_model("small"))
    sent = link.send(read_image(PHOTO))
    assert sent.header.encoder_id == TorchEngine(load_cascade(WEIGHTS / "small")).encoder_id == link.engine.encoder_id
    with pytest.raises(InputError, match="was sent with encoder beef, model 'small' has encoder"):
        link.receive(link.propagate(sent.content, 10), replace(sent.header, encoder_id=0xBEEF))


@pytest.mark.slow
def test_a_model_is_stored_as_it_ships_by_one_command(tmp_path):
    """benchmarks/store.py: the same weights keep their figures, new ones do not."""
    save_model(tiny_cascade(), tmp_path / "trained")
    program = [sys.executable, str(Path(__file__).parents[1] / "benchmarks" / "store.py"), str(tmp_path / "trained")]
    same, new = tmp_path / "same", tmp_path / "new"
    subprocess.run([*program, str(same), "--same"], check=True, capture_output=True)
    subprocess.run([*program, str(new), "--understands", "dc0d"], check=True, capture_output=True)
    old = f"{TorchEngine(load_cascade(tmp_path / 'trained')).encoder_id:04x}"
    assert load_cascade(same).config.understands == (old,) and load_cascade(new).config.understands == ("dc0d",)
    assert load_cascade(same).config.same_as and not load_cascade(new).config.same_as
    image = read_image(PHOTO)[..., :128, :128]
    trained, stored = (Link(load_model(folder)) for folder in (tmp_path / "trained", same))
    sent = trained.send(image)
    assert to_pixels(stored.receive(trained.propagate(sent.content, 10), sent.header, 1)).shape == (128, 128, 3)


def test_the_package_is_small_enough_to_install_anywhere():
    """25 MB unpacked, of which the networks are nearly all."""
    files = [p for p in Path(semcast.__file__).parent.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert sum(p.stat().st_size for p in files) < 25e6
