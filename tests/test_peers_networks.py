"""The rivals' networks: sizes, what they are told, weights in 8 bits that are checked."""

import json

import numpy as np
import pytest
import torch
from peer_parts import awake, told, untaught
from safetensors import safe_open

from semcast.bench.peers import parts
from semcast.bench.peers.blocks import AwareDepthwise, AwareProjection
from semcast.bench.peers.objectives import receive
from semcast.bench.peers.parts import PARTS, load_part, weights_path
from semcast.bench.peers.systems import PEERS
from semcast.bench.peers.unet import EMBED
from semcast.bench.systems import find_system
from semcast.errors import InputError
from semcast.files import load_arrays
from semcast.randomness import seeded


def test_kernels_depend_on_what_is_known_of_the_picture():
    layer = awake(AwareDepthwise(8, EMBED))
    e = torch.from_numpy(seeded(0).standard_normal((2, EMBED), np.float32))
    kernels, x = layer.kernels(e), torch.randn(2, 8, 6, 7)
    assert not torch.allclose(kernels[0], kernels[1])
    for i in range(2):
        alone = torch.nn.functional.conv2d(x[i : i + 1], kernels[i][:, None], layer.static.bias, padding=1, groups=8)
        assert torch.allclose(layer(x, e)[i : i + 1], alone, atol=1e-5)
    fresh = AwareDepthwise(8, EMBED)
    assert torch.equal(fresh.kernels(e)[0], fresh.static.weight[:, 0])  # it starts as a plain convolution
    out = awake(AwareProjection(8, 3, EMBED))
    same = x[:1].repeat(2, 1, 1, 1)
    assert out(same, e).shape == (2, 3, 6, 7) and not torch.allclose(out(same, e)[0], out(same, e)[1])


@pytest.mark.parametrize("name", ["img2img", "gesco", "diffsc32", "casc32"])
def test_all_that_a_network_is_told_matters_and_pictures_do_not_meet(name):
    network = untaught(name)
    given = told(network, 3, 9, 7)
    found = network(**given)
    assert found.shape == given["x"].shape
    for i in range(3):
        alone = network(**{key: value[i : i + 1] for key, value in given.items()})
        assert torch.allclose(alone, found[i : i + 1], atol=1e-5)
    for key, value in given.items():
        other = network(**{**given, key: value * 1.3 + 0.1})
        assert not torch.allclose(other, found, atol=1e-4), key
    kinds = {type(module).__name__ for module in network.modules()}
    assert ("MapNorm" in kinds) == (name == "gesco") and ("AwareDepthwise" in kinds) == (name == "casc32")
    assert ("FeatureAttention" in kinds) == (name == "diffsc32")


def test_networks_have_the_sizes_that_they_should():
    for name, part in PARTS.items():
        count = sum(p.numel() for p in part.build().parameters())
        low, high = {"ae": (1.5e6, 4e6), "st": (0.5e6, 1.5e6)}.get(name[:2], (5e6, 8e6))
        assert low < count < high, name
    for name, channels, stride in (("ae8", 4, 8), ("ae16", 8, 16), ("ae32", 9, 32)):
        network = untaught(name)
        assert network.config.stride == stride
        z = network.encode(torch.randn(2, 4, 16, 32))  # Stage A's latent of 64x128 pixels
        assert z.shape == (2, channels, 64 // stride, 128 // stride)
        assert network.decode(z).shape == (2, 4, 16, 32)
        if stride > 8:
            assert torch.allclose(z.square().mean((1, 2, 3)), torch.ones(2), atol=1e-5)


def test_receptions_in_training_have_their_noise():
    z = torch.from_numpy(seeded(0).standard_normal((300, 9, 8, 8), np.float32))
    estimate, noise_var = receive(z, seeded(1))
    snr_db = -10 * noise_var.log10()
    assert 1 <= snr_db.min() < 1.5 and 19.5 < snr_db.max() <= 20
    each = noise_var[:, None, None, None]
    rest = (estimate * (1 + each) - z).var(dim=(1, 2, 3)) / noise_var
    assert rest.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", ["missing", "foreign", "shape", "short", "cut"])
def test_wrong_weights_are_refused(peers, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SEMCAST_PEERS", str(tmp_path))
    path, good = weights_path("ae8"), weights_path("ae8", peers)
    error = {
        "missing": f"{path} is missing: `runs/peers.sh PHOTOS LABELS {tmp_path}` trains the rivals' networks, "
        "and SEMCAST_PEERS names their folder",
        "foreign": f"{path} says ae16; expected weights of ae8",
        "shape": f"{path} has no shape of a network",
        "short": f"{path} lacks tensor",
        "cut": f"cannot read {path}: ",
    }[kind]
    if kind == "foreign":
        path.write_bytes(weights_path("ae16", peers).read_bytes())
    if kind == "cut":
        path.write_bytes(good.read_bytes()[:-100])
    if kind in ("shape", "short"):
        tensors = load_arrays(good)
        tensors = {k: v for k, v in tensors.items() if kind == "shape" or k != "mean"}
        config = "{}" if kind == "shape" else parts.read_metadata(good)["config"]
        path.write_bytes(parts.save(tensors, {"part": "ae8", "config": config}))
    with pytest.raises(InputError) as caught:
        load_part("ae8")
    assert str(caught.value).startswith(error) and "\n" not in str(caught.value)


def test_weights_in_8_bits_say_their_shape_and_come_back(peers):
    path = weights_path("casc32", peers)
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["config"])["widths"] == [8, 8, 16] and file.metadata()["part"] == "casc32"
        assert file.get_tensor("stem.weight").dtype == np.int8
    network = untaught("casc32")
    given = told(network, 1, 8, 8)
    error = load_part("casc32")(**given) - network(**given)
    assert 0 < error.abs().mean() < 0.05 * network(**given).abs().mean()
    versions = {name: find_system(name).version() for name in PEERS}
    assert len({*versions.values()}) == 7  # of 9: Img2Img-SC's two share weights, and so do GESCO's two repaired ones
    assert versions["diffsc"].startswith("stage_a ") and "diffsc32 " in versions["diffsc"]
