"""A sender that takes its time: a better Z by gradient descent, for a receiver that need not know of it."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_ENHANCEMENT, photo, tiny_cascade
from PIL import Image

from semcast import InputError, Link, load_model
from semcast.cascade.checkpoint import save_model
from semcast.errors import brings
from semcast.header import BASE, Header
from semcast.images import read_image, to_image
from semcast.modulation import optimise as module
from semcast.modulation.analog import unflatten
from semcast.modulation.optimise import distance, map_distance, optimise, paint
from semcast.transmitter import OPTIMISED_SIDE_MAX, pad, transmit

SIDE, SNR_DB = 96, 10.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimise") / "tiny"
    save_model(tiny_cascade(enhancement=TINY_ENHANCEMENT), folder)
    return load_model(folder, engine="torch")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return to_image(photo(SIDE, SIDE))


def sent(engine, image) -> tuple[np.ndarray, Header]:
    (z,), header = transmit(image, engine, 0.75)
    return z, header


@pytest.fixture
def losses(monkeypatch) -> list[tuple[bool, float]]:
    """Of every painting from now on: whether it was for a gradient, and how far it is from the picture."""
    seen = []
    monkeypatch.setattr(
        module, "distance", lambda a, b: (found := distance(a, b), seen.append((found.requires_grad, found.item())))[0]
    )
    monkeypatch.setattr(module, "FEATURE_WEIGHT", 0.0)
    return seen


def test_the_loss_falls_under_noise_that_no_step_has_seen(engine, image, losses):
    z, header = sent(engine, image)
    better = optimise(z, image, header, engine.cascade, SNR_DB, steps=12)
    checks = np.reshape([value for gradient, value in losses if not gradient], (-1, module.DRAWS)).mean(axis=1)
    assert len(checks) == 1 + module.CHECKS and np.all(np.diff(checks) < 0)
    assert better.shape == z.shape and better.dtype == np.float32 and not np.array_equal(better, z)


def test_what_is_compared_is_what_the_receiver_paints(engine, image):
    z, header = sent(engine, image)
    link = Link(engine)
    header, x = link.send(image)
    clean = link.receive(link.propagate(x, 60.0), header)
    painted = paint(engine.cascade, torch.from_numpy(z), header, 60.0, np.random.default_rng(0)).clamp(0, 1).numpy()
    assert painted.shape == image.shape and np.abs(painted - clean).max() < 0.02 < clean.std()


def test_the_start_is_kept_where_no_step_is_better(engine, image, monkeypatch):
    uphill = lambda a, b: 2 * distance(a, b).detach() - distance(a, b)  # the loss, with its gradient turned round
    monkeypatch.setattr(module, "distance", uphill)
    monkeypatch.setattr(module, "FEATURE_WEIGHT", 0.0)
    z, header = sent(engine, image)
    assert np.array_equal(optimise(z, image, header, engine.cascade, SNR_DB, steps=4), z)


def test_the_same_arguments_give_the_same_z_and_other_noise_another(engine, image):
    z, header = sent(engine, image)
    make = lambda **more: optimise(z, image, header, engine.cascade, SNR_DB, 3, **more)
    first = make()
    torch.manual_seed(9)  # the seeds of others have no effect
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert np.abs(make() - first).mean() < 1e-3 < np.abs(z - first).mean()
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(make(), first) and not np.array_equal(make(seed=1), first)


def test_the_distances_are_zero_for_equal_pictures_only_and_maps_have_unit_length(engine, image):
    a, b = torch.from_numpy(image), torch.from_numpy(1 - image)
    maps = [engine.cascade.encoder.maps(x, module.STAGES) for x in (a, b)]
    assert len(maps[0]) == len(module.STAGES)
    assert [SIDE // x.shape[-1] for x in engine.cascade.encoder.maps(a, (0, 2, 3, 4))] == [2, 4, 8, 16]
    assert all(torch.allclose(x.square().sum(dim=1), torch.ones(())) for x in maps[0])
    assert map_distance(maps[0], maps[0]) == 0 < map_distance(*maps) and distance(a, a) == 0 < distance(a, b)
    assert distance(a, a + 0.25).item() == pytest.approx(0.25)


def test_a_frame_made_so_is_received_as_every_other(engine, image, tmp_path):
    plain, better = Link(engine).send(image), Link(engine).send(image, SNR_DB, optimise=4)
    assert better.content.shape == plain.content.shape and better.header.side_bits == plain.header.side_bits
    assert not np.array_equal(better.content, plain.content)
    assert np.mean(np.abs(better.content) ** 2) == pytest.approx(1, abs=1e-5)
    z = unflatten(better.content, better.header.gain, better.header.latent_shape)
    assert z.shape == sent(engine, image)[0].shape


@pytest.fixture
def folder(engine, tmp_path, monkeypatch) -> Path:
    """A working folder with the model `tiny` and a picture."""
    monkeypatch.chdir(tmp_path)
    save_model(engine.cascade, tmp_path / "tiny")
    Image.fromarray(photo(SIDE, SIDE)).save("a.png")
    return tmp_path


SEND = ("send", "a.png", "-o", "a.sem", "--model", "tiny")


def test_send_and_run_optimise(folder, cli):
    assert cli(*SEND, "--optimise", 2, "--snr", SNR_DB) == (0, "", "")
    assert cli("send", "a.png", "-o", "plain.sem", "--model", "tiny") == (0, "", "")
    assert Path("a.sem").stat().st_size == Path("plain.sem").stat().st_size
    assert cli("channel", "a.sem", "-o", "b.sem", "--snr", SNR_DB) == (0, "", "")
    assert cli("receive", "b.sem", "-o", "b.png", "--model", "tiny", "--engine", "onnx") == (0, "", "")
    code, out, _ = cli("run", "a.png", "--snr", SNR_DB, "--optimise", 2, "--model", "tiny", "-o", "c.png", "-q")
    assert code == 0 and '"optimise":2' in out
    difference = np.abs(read_image("b.png") - read_image("c.png"))
    assert difference.max() <= 1.01 / 255  # two engines


@pytest.mark.parametrize(
    "line, told",
    [
        ("--optimise 5", "--optimise holds for an SNR; give --snr DB with it"),
        ("--optimise 0 --snr 9", "0 must lie between 1 and 1000"),
        ("--optimise 5 --snr 9 --mode digital", "a packet cannot be optimised"),
        ("--optimise 5 --snr 9 --rungs 9-16", "only the whole base can be optimised, rungs 1 to 8"),
        ("--optimise 5 --snr 9 --rungs 1-4", "only the whole base can be optimised, rungs 1 to 8"),
        ("--optimise 5 --snr 9 --uses 900", "--optimise is for the whole base, rungs 1 to 8; leave out --uses"),
        ("--optimise 5 --snr 9 --quality 0.5", "leave out --quality"),
        ("--optimise 5 --reply r", "leave out --reply"),
        ("--optimise 5 --snr 9 --engine onnx", "--optimise needs gradients, which the engine onnx has not"),
        ("--optimise 5 --snr 9 --compile", "leave out --compile"),
    ],
)
def test_what_cannot_be_optimised_is_refused_in_one_line_before_any_work(line, told, folder, cli, monkeypatch):
    monkeypatch.setattr("semcast.cascade.engine.load_model", lambda *args: pytest.fail("loaded"))
    code, out, err = cli(*SEND, *line.split())
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1 and not Path("a.sem").exists()


def test_without_torch_one_line_says_what_to_install(folder, cli, monkeypatch):
    monkeypatch.setattr("semcast.errors.missing", lambda *packages: [p for p in packages if p.startswith("torch")])
    for line in (SEND, ("run", "a.png", "--model", "tiny")):
        code, out, err = cli(*line, "--optimise", 5, "--snr", 9)
        assert (code, out) == (2, "") and err.count("\n") == 1 and not Path("a.sem").exists()
        assert err.startswith(f"semcast: --optimise needs torch and torchvision: {brings('torch')}")


def test_the_largest_picture_stands_in_the_documents():
    results = (Path(__file__).parent.parent / "docs" / "results.md").read_text()
    assert f"takes pictures of up to {OPTIMISED_SIDE_MAX}x{OPTIMISED_SIDE_MAX} pixels" in results


def test_a_large_picture_is_refused_before_the_networks_are_loaded(folder, cli, monkeypatch):
    Image.new("RGB", (OPTIMISED_SIDE_MAX + 1, 64)).save("a.png")
    monkeypatch.setattr("semcast.cascade.engine.load_model", lambda *args: pytest.fail("loaded"))
    told = f"semcast: picture is {OPTIMISED_SIDE_MAX + 1}x64 pixels; optimising takes sides of {OPTIMISED_SIDE_MAX} at "
    for line in (SEND, ("run", "a.png", "--model", "tiny")):
        code, _, err = cli(*line, "--optimise", 5, "--snr", 9)
        assert code == 2 and err.startswith(told) and err.count("\n") == 1


def test_python_refuses_what_the_command_line_refuses(engine, image, folder):
    with pytest.raises(InputError, match="optimising needs gradients, which the engine torch has"):
        Link(load_model("tiny", engine="onnx")).send(image, SNR_DB, optimise=1)
    with pytest.raises(InputError, match="optimising holds for an SNR"):
        Link(engine).send(image, optimise=1)
    with pytest.raises(InputError, match="only the whole base"):
        Link(engine).send(image, SNR_DB, rungs=(1, BASE[1] + 1), optimise=1)
    with pytest.raises(InputError, match="a packet cannot be optimised"):
        Link(engine, mode="digital").send(image, SNR_DB, optimise=1)
    save_model(tiny_cascade(steps=4), folder / "slow")
    with pytest.raises(InputError, match="receives in 4 steps; only models that need one can be optimised for"):
        Link(load_model("slow", engine="torch")).send(image, SNR_DB, optimise=1)


def test_progress_counts_the_steps_of_the_sender_first(engine, image):
    done = []
    Link(engine)(image, SNR_DB, progress=done.append, optimise=3)
    assert done == [1, 2, 3, 4]


def test_a_person_sees_how_long_it_will_take(folder, cli, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    cli(*SEND, "--optimise", 3, "--snr", 9)
    assert "a.png" in terminal.getvalue() and "0/3 [00:00<" in terminal.getvalue()
    terminal.seek(0)
    terminal.truncate()
    cli("send", "a.png", "-o", "plain.sem", "--model", "tiny")
    assert terminal.getvalue() == ""


def test_an_interrupt_leaves_no_frame(folder, cli, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "map_distance", interrupted)
    before = sorted(folder.iterdir())
    assert cli(*SEND, "--optimise", 5, "--snr", 9) == (130, "", "semcast: interrupted\n")
    assert sorted(folder.iterdir()) == before


def test_padding_is_not_compared(engine):
    """Of a picture whose sides are no multiples of 64 only what the receiver shows counts."""
    image = to_image(photo(70, 100))
    (z,), header = transmit(image, engine, 0.75)
    assert pad(image, header.padded).shape[-2:] == (128, 128)
    painted = paint(engine.cascade, torch.from_numpy(z), header, SNR_DB, np.random.default_rng(0))
    assert painted.shape == image.shape
    assert optimise(z, image, header, engine.cascade, SNR_DB, steps=1).shape == z.shape
