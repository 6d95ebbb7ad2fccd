"""DeepJSCC in the bench: the paper's shape, exact power and uses, any size, weights that are checked, training that learns."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import photo

import train_deepjscc
from semcast.bench import deepjscc
from semcast.bench.deepjscc import RATIOS, DeepJSCC, cells, choose, initialise, load_network, save_network, weights_path
from semcast.bench.ends import Ends
from semcast.bench.harness import count_uses
from semcast.bench.systems import find_system
from semcast.bench.unit import check_sent
from semcast.cascade.device import to_tensor
from semcast.channels.catalogue import find_channel
from semcast.errors import InputError
from semcast.randomness import seeded

MODULE = """
from functools import partial
from pathlib import Path
from semcast.bench import deepjscc
from semcast.bench.base import System
folder = Path(__file__).parent
SYSTEM = System("random weights", partial(deepjscc.send, folder=folder), partial(deepjscc.receive, folder=folder))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Random weights of all ratios, and the module that makes a system of them."""
    folder = tmp_path_factory.mktemp("deepjscc")
    for ratio in RATIOS:
        network = initialise(DeepJSCC(ratio), seeded(0))
        save_network(network, ratio, weights_path(ratio, folder), {"steps": 0, "pictures": 0, "seed": 0})
    (folder / "random_deepjscc.py").write_text(MODULE)
    return folder


@pytest.fixture(scope="module")
def ends(folder):
    """The two processes, which find the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(str(folder))
        with Ends() as ends:
            yield ends


def generator() -> np.random.Generator:
    return seeded(1)


def test_the_published_shape():
    """Its layers, 5x5 each, with biases and a PReLU slope a channel; the sigmoid has none."""
    encoder = [(3, 16), (16, 32), (32, 32), (32, 32), (32, 8)]
    decoder = [(8, 32), (32, 32), (32, 32), (32, 16), (16, 3)]
    convolutions = sum(25 * inside * outside + outside for inside, outside in encoder + decoder)
    slopes = (16 + 32 + 32 + 32 + 8) + (32 + 32 + 32 + 16)
    network = DeepJSCC("1/12")
    assert sum(p.numel() for p in network.parameters()) == convolutions + slopes == 143_667
    assert [type(m).__name__ for m in network.encoder] == ["Conv2d", "PReLU"] * 5
    assert [type(m).__name__ for m in network.decoder] == ["ConvTranspose2d", "PReLU"] * 4 + [
        "ConvTranspose2d",
        "Sigmoid",
    ]
    assert [m.stride[0] for m in network.encoder if isinstance(m, torch.nn.Conv2d)] == [2, 2, 1, 1, 1]
    assert [m.stride[0] for m in network.decoder if isinstance(m, torch.nn.ConvTranspose2d)] == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("ratio", RATIOS)
def test_ratios_and_power(ratio):
    network, n = initialise(DeepJSCC(ratio), generator()), 3 * 128 * 192
    images = torch.cat([to_tensor(photo(128, 192, seed)) * scale for seed, scale in ((0, 1), (1, 0.1), (2, 0))])
    with torch.inference_mode():
        x = network.encode(images)
        received = network(images, torch.tensor([1.0, 10.0, 20.0]), [generator() for _ in images])
    assert x.shape == (3, {"1/12": n // 12, "1/96": n // 96, "1/683": n * 3 // 2048}[ratio])
    assert x[:2].abs().square().mean(dim=1) == pytest.approx([1, 1], abs=1e-5)  # each picture's own
    assert received.shape == images.shape and received.std() > 0.01  # a start that carries something


def test_every_symbol_reaches_the_decoder_where_it_belongs():
    network = DeepJSCC("1/683")
    network.encoder, network.decoder = torch.nn.Identity(), torch.nn.Identity()
    z = torch.from_numpy(
        generator().standard_normal((2, 9, 3, 5), np.float32)
    )  # 135 numbers: half a symbol is left over
    x = network.encode(z)
    assert x.shape == (2, 68)
    shown = network.decode(torch.cat([x.real, x.imag], dim=1), 3, 5)
    power = z.square().flatten(1).sum(dim=1) / 68
    assert torch.allclose(shown * power.sqrt()[:, None, None, None], z, atol=1e-5)


def test_the_grid_fits_and_the_receiver_finds_the_senders():
    assert cells(512, 512, 1152, 9, 32) == (16, 16)
    assert cells(500, 333, 731, 9, 32) == (16, 10)  # padding to 16 x 11 needs 792: the width shrinks from 333 to 320
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 900, (300, 2)).tolist():
        for channels, stride in ((8, 4), (16, 16), (9, 32)):
            uses = int(rng.integers(channels, 2 + 2 * channels * height * width // (2 * stride**2) + channels))
            rows, columns = cells(height, width, uses, channels, stride)
            k = -(-channels * rows * columns // 2)
            assert k <= uses and rows <= -(-height // stride) and columns <= -(-width // stride)
            assert cells(height, width, k, channels, stride) == (rows, columns)


def test_the_largest_ratio_that_fits_is_chosen():
    for ratio in RATIOS:
        uses = count_uses(ratio, 512, 768)
        assert choose(512, 768, uses) == ratio
    assert choose(512, 512, 1152) == choose(512, 512, 8191) == "1/683"
    assert choose(512, 512, 8192) == "1/96"
    assert (
        choose(576, 576, count_uses("same", 576, 576)) == "1/683"
    )  # semcast's own uses are a little less than 3/2048 there
    with pytest.raises(InputError, match=r"^4 channel uses are too few for deepjscc: it needs 5$"):
        choose(8, 9, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule, channel", [("1/12", "awgn"), ("1/96", "rayleigh-fast"), ("same", "awgn"), ("1/683", "erasure")]
)
def test_round_trip_in_two_processes(folder, ends, rule, channel):
    name, pixels = "random_deepjscc:SYSTEM", photo(101, 77)
    uses = count_uses(rule, 101, 77)
    x, side, _ = ends.send(name, pixels, uses, 10.0)
    facts = check_sent(name, find_system(name), x, side, uses, 10.0)
    received = find_channel(channel)(x, 10.0, [generator()])
    image, _ = ends.receive(name, received, side)
    assert 0.5 * uses < facts["payload_uses"] <= uses and facts["side_bits"] == 16 + 16 + 24 + 2
    assert facts["power"] == pytest.approx(1, abs=1e-5)
    assert side["network"] == [RATIOS.index("1/683" if rule == "same" else rule), 2]
    assert [side[c][0] for c in ("red", "green", "blue")] == pixels.mean(axis=(0, 1)).round().tolist()
    assert image.shape == pixels.shape and image.std() > 1
    torch.set_num_threads(1)
    again = deepjscc.send(pixels, uses, 10.0, folder)[0]
    assert np.array_equal(again, x) and np.array_equal(deepjscc.receive(received, side, folder), image)


def test_a_whole_picture_is_neither_shrunk_nor_moved(folder, monkeypatch):
    """With a network that only averages, what is received at an odd size lies where it lay."""
    network = DeepJSCC("1/96")
    network.encoder, network.decoder, network.channels = torch.nn.AvgPool2d(16), torch.nn.Upsample(scale_factor=16), 3
    monkeypatch.setattr(deepjscc, "load_network", lambda *_: network)
    monkeypatch.setattr(deepjscc, "choose", lambda *_: "1/96")
    pixels = np.zeros((101, 77, 3), np.uint8)
    pixels[:64, :32] = 255
    for uses, grid in ((53, (7, 5)), (52, (6, 5))):  # all cells; a symbol too few
        x, side = deepjscc.send(pixels, uses, 20.0, folder)
        assert x.shape[1] == -(-3 * grid[0] * grid[1] // 2)
        seen = deepjscc.receive(find_channel("awgn")(x, 90.0, [generator()]), side, folder)
        assert seen.shape == pixels.shape
        inside, outside = seen[:56, :24], np.concatenate([seen[76:].ravel(), seen[:, 44:].ravel()])
        assert (inside > 200).all() and (outside < 30).all()
        assert uses == 52 or ((seen[:64, :32] > 200).all() and (seen[64:] < 5).all() and (seen[:, 32:] < 5).all())


@pytest.mark.parametrize("kind", ["missing", "foreign", "unnamed", "short", "cut"])
def test_wrong_weights_are_refused(folder, tmp_path, kind):
    path, good = weights_path("1/683", tmp_path), weights_path("1/683", folder)
    assert path == tmp_path / "deepjscc-683.safetensors"
    tensors, ratio = load_file(good), {"ratio": "1/683"}
    error = {
        "missing": f"DeepJSCC 1/683 has no weights ({path} is missing); this makes them: "
        f"python benchmarks/train_deepjscc.py 1/683 PHOTOS --minutes 10 --out {path}",
        "foreign": f"{path} says 1/96; expected weights of DeepJSCC 1/683",
        "unnamed": f"{path} says no ratio; expected weights of DeepJSCC 1/683",
        "short": f"{path} lacks tensor decoder.0.bias (1 such); it belongs to another network",
        "cut": f"cannot read {path}: ",
    }[kind]
    if kind == "foreign":
        path.write_bytes(weights_path("1/96", folder).read_bytes())
    if kind == "unnamed":
        save_file(tensors, path)
    if kind == "short":
        save_file({k: v for k, v in tensors.items() if k != "decoder.0.bias"}, path, ratio)
    if kind == "cut":
        path.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(InputError) as caught:
        load_network("1/683", tmp_path)
    assert (str(caught.value).startswith if kind == "cut" else str(caught.value).__eq__)(error)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_training_learns_and_repeats():
    batch = torch.nn.functional.interpolate(
        torch.from_numpy(generator().random((8, 3, 2, 2), np.float32)), size=(64, 64), mode="bilinear"
    )
    torch.set_num_threads(1)
    for ratio in RATIOS:
        _, losses = train_deepjscc.train(ratio, lambda step: batch, seed=0, steps=40)
        flat = (batch - batch.mean(dim=(0, 2, 3), keepdim=True)).square().mean().item()
        assert np.mean(losses[-5:]) < 0.9 * flat < np.mean(losses[:2]), (
            ratio,
            flat,
            losses,
        )  # better than one colour for all
    short = lambda seed: train_deepjscc.train(RATIOS[-1], lambda step: batch, seed, steps=5)[1]
    assert short(0) == short(0) != short(1)


def test_every_picture_of_every_step_has_its_own_snr(monkeypatch):
    seen, forward = [], DeepJSCC.forward
    monkeypatch.setattr(
        DeepJSCC,
        "forward",
        lambda self, image, snr_db, g: (seen.extend(snr_db.tolist()), forward(self, image, snr_db, g))[1],
    )
    train_deepjscc.train("1/683", lambda step: torch.rand(20, 3, 32, 32), seed=0, steps=5)
    assert len(set(seen)) == 100 and 1 <= min(seen) < 2.5 and 18.5 < max(seen) <= 20


def test_the_training_command(folder, tmp_path, monkeypatch, capsys):
    Image.fromarray(photo(96, 128)).save(tmp_path / "a.png")
    monkeypatch.setitem(train_deepjscc.SIZES, "1/683", (64, 2))
    out = tmp_path / "new" / "deepjscc-683.safetensors"
    for length in (["--steps", "2"], ["--minutes", "0.005"]):
        assert train_deepjscc.main(["1/683", str(tmp_path), "--out", str(out), "--seed", "3", *length]) == 0
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (said["pictures"], said["seed"]) == (1, 3) and said["steps"] >= (2 if "--steps" in length else 1)
    with deepjscc.safe_open(out, "pt") as file:
        assert file.metadata() == {
            "ratio": "1/683",
            **{name: str(said[name]) for name in ("steps", "pictures", "crop", "batch", "seed")},
        }
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    x, _ = deepjscc.send(photo(96, 128), 54, 10.0, out.parent)
    assert x.shape == (1, 54)
    assert (
        deepjscc.version(out.parent)
        != deepjscc.version(folder)
        != deepjscc.version(tmp_path)
        == "deepjscc without weights"
    )
    for argv, error in (
        (["1/683", str(tmp_path / "none"), "--out", str(out), "--steps", "2"], "no pictures at"),
        (["1/683", str(tmp_path), "--out", str(out), "--steps", "0"], "must be above 0"),
        (["1/683", str(tmp_path), "--out", str(tmp_path / "a.png" / "b"), "--steps", "2"], "a.png"),
    ):
        assert train_deepjscc.main(argv) == 2
        message = capsys.readouterr().err
        assert error in message and message.count("\n") == 1


def test_shipped_weights():
    assert sum(weights_path(ratio).stat().st_size for ratio in RATIOS) < 2.5 * 2**20
    for ratio in RATIOS:
        load_network(ratio)


def test_all_three_files_are_small(folder):
    assert sum(weights_path(ratio, folder).stat().st_size for ratio in RATIOS) < 2.5 * 2**20
