"""The link from end to end: symbols, sizes, side information, the equaliser, and equal results from all interfaces."""

import json
import math
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from test_channel import seeded
from tiny import photo, tiny_cascade

from semcast import Link, load_model, read_image
from semcast.cascade.checkpoint import save_model
from semcast.cascade.denoiser import denoise, prepare
from semcast.cascade.loading import compile_networks
from semcast.cascade.torch_engine import TorchEngine
from semcast.channels.base import Received
from semcast.channels.noise import awgn
from semcast.errors import InputError
from semcast.frame import noiseless, write_frame
from semcast.header import HEADER_BITS, LADDER_BITS, MIXED_BITS, SIDE_BITS, Header, bandwidth_ratio
from semcast.images import to_image, to_pixels
from semcast.modulation.analog import demodulate, modulate, unflatten
from semcast.randomness import stream
from semcast.receiver import receive

ROW_KEYS = """image width height channel_uses bandwidth_ratio side_bits channel snr_db seed
    psnr_db ssim ms_ssim lpips lpips_vgg encode_ms decode_ms""".split()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return seeded(seed)[0].standard_normal(shape, np.float32)


def complex_normal(*shape: int, seed: int = 0) -> np.ndarray:
    return (normal(*shape, 2, seed=seed).view(np.complex64) / np.sqrt(np.float32(2)))[..., 0]


def header(height: int, width: int, factor: float = 0.75) -> Header:
    return Header(0, height, width, factor, 1.0)


def symbols(z: np.ndarray) -> np.ndarray:
    """Z [B, 16, hz, wz] as complex symbols [B, k]."""
    real, imag = np.split(z.reshape(len(z), -1), 2, axis=1)
    return real + 1j * imag


def receive_symbols(received: Received, header: Header, gain, engine, generators, steps: int) -> np.ndarray:
    """Analog symbols -> pictures."""
    known = demodulate(received, gain, header.latent_shape, engine.config.noise_aware)
    return receive(header, [known], engine, generators, steps)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Folder with an upright and a lying picture of odd sides; no LPIPS weights in reach."""
    monkeypatch.delenv("SEMCAST_LPIPS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    Image.fromarray(photo(201, 130, seed=1)).save(tmp_path / "upright.png")
    Image.fromarray(photo(131, 200, seed=2)).save(tmp_path / "lying.png")
    return tmp_path


def test_modulate_gives_each_image_unit_power_and_unflatten_undoes_it():
    z = normal(4, 16, 3, 5) * np.array([1e-2, 1, 3, 50], np.float32)[:, None, None, None] + np.float32(0.5)
    x, gain = modulate(z)
    assert x.shape == (4, 120) and x.dtype == np.complex64 and gain.shape == (4, 1)
    assert np.allclose(np.mean(np.abs(x) ** 2, axis=1), 1, atol=1e-5)
    assert np.allclose(unflatten(x, gain, (16, 3, 5)), z, rtol=1e-5, atol=0)
    assert np.array_equal(modulate(z[2:3])[0], x[2:3])  # power is per image, never per batch
    flat = z.reshape(4, -1) * gain
    assert np.array_equal(x.real, flat[:, :120]) and np.array_equal(x.imag, flat[:, 120:])


@pytest.mark.parametrize(
    "width, height, factor, uses",
    [  # counted by hand: 16 values per 32 x 32 pixels of the shrunk padded picture, two per symbol
        (512, 512, 0.75, 1152),  # 12 x 12
        (1024, 1024, 0.75, 4608),  # 24 x 24
        (1024, 1024, 1.0, 8192),  # 32 x 32
        (1024, 1024, 0.5, 2048),  # 16 x 16
        (2048, 1024, 0.75, 9216),  # 48 x 24
        (2048, 2048, 1.0, 32768),  # 64 x 64
        (64, 64, 0.75, 8),  # 48 -> 32: 1 x 1
        (64, 64, 1.0, 32),  # 2 x 2
        (65, 64, 0.75, 24),  # 128 x 64 -> 96 x 32: 3 x 1
        (480, 360, 0.75, 864),  # 512 x 384 -> 384 x 288: 12 x 9
        (201, 130, 0.75, 192),  # 256 x 192 -> 192 x 144, so 128: 6 x 4
        (512, 512, 0.6, 648),  # 307, so 288: 9 x 9
    ],
)
def test_channel_uses(width, height, factor, uses):
    assert header(height, width, factor).channel_uses == uses
    assert header(width, height, factor).channel_uses == uses
    channels, hz, wz = header(height, width, factor).latent_shape
    assert channels == 16 and 16 * hz * wz / 2 == uses


def test_bandwidth_ratio():
    for sides in ((128, 128), (512, 512), (1024, 2048), (384, 640)):
        assert bandwidth_ratio(header(*sides).channel_uses, *sides) == 3 / 2048
    assert bandwidth_ratio(header(360, 480).channel_uses, 360, 480) == 1 / 600


def test_side_bits_are_the_sum_of_their_table_and_few():
    assert SIDE_BITS == sum(HEADER_BITS.values()) <= 96
    assert HEADER_BITS.keys() | LADDER_BITS.keys() | MIXED_BITS.keys() >= {field.name for field in fields(Header)}


@pytest.mark.parametrize("columns", [1, 120], ids=["h per image", "h per symbol"])
def test_demodulate_undoes_a_channel_without_noise(columns):
    z = normal(3, 16, 3, 5)
    x, gain = modulate(z)
    h = complex_normal(3, columns, seed=1) + np.float32(0.1)
    for noise_aware in (True, False):
        estimate, noise = demodulate(Received(h * x, h, np.zeros((3, 1), np.float32)), gain, (16, 3, 5), noise_aware)
        # Dividing by |h|^2 magnifies float32 rounding, 1e-7, by no more than 1 / |h|.
        assert np.abs(estimate - z).max() < 1e-5 / np.abs(h).min()
        assert noise.shape == (3, 16, 3, 5) and not noise.any()


@pytest.mark.parametrize("columns", [1, 120], ids=["h per image", "h per symbol"])
def test_equaliser_is_mmse_when_noise_aware_and_zero_forcing_when_blind(columns):
    y, h = complex_normal(2, 120), complex_normal(2, columns, seed=1)
    noise_var, gain = np.array([[0.1], [2]], np.float32), np.array([[0.5], [4]], np.float32)
    power = np.abs(h) ** 2
    blind, noise = demodulate(Received(y, h, noise_var), gain, (16, 3, 5), noise_aware=False)
    aware, same = demodulate(Received(y, h, noise_var), gain, (16, 3, 5), noise_aware=True)
    assert np.allclose(symbols(blind), y / h / gain, rtol=1e-4)
    assert np.allclose(symbols(aware), y / h / gain * power / (power + noise_var), rtol=1e-4)
    expected = np.broadcast_to(noise_var / (noise_var + power), (2, 120))
    assert np.allclose(symbols(noise), expected * (1 + 1j), rtol=1e-5) and np.array_equal(noise, same)


def test_noise_level_goes_from_0_without_noise_to_1_without_signal():
    y, h = complex_normal(4, 8), np.ones((4, 1), np.complex64)
    noise_var = np.array([[0], [1], [3], [math.inf]], np.float32)
    z, noise = demodulate(Received(y, h, noise_var), 1.0, (16, 1, 1), noise_aware=True)
    assert np.array_equal(noise[:, 0, 0, 0], [0, 0.5, 0.75, 1]) and (noise == noise[:, :1]).all()
    assert not z[3].any() and np.isfinite(z).all()
    erased = np.array([[0, math.inf] * 4], np.float32)  # every other symbol is lost
    z, noise = demodulate(Received(y[:1], h[:1], erased), 1.0, (16, 1, 1), noise_aware=True)
    assert np.array_equal(symbols(noise).real, np.isinf(erased))
    assert np.array_equal(symbols(z), np.where(erased == 0, y[:1], 0))


def test_a_batch_gives_the_same_pictures_as_single_receptions():
    engine, side = TorchEngine(tiny_cascade()), header(130, 201)
    x, gain = modulate(normal(8, *side.latent_shape) * np.linspace(0.5, 2, 8, dtype=np.float32)[:, None, None, None])
    received = awgn(x, np.linspace(-5, 20, 8), seeded(*range(8)))
    together = receive_symbols(received, side, gain, engine, seeded(*range(10, 18)), steps=3)
    assert together.shape == (8, 3, 130, 201)
    for i in range(8):
        row = slice(i, i + 1)
        alone = receive_symbols(
            Received(*(part[row] for part in received)), side, gain[row], engine, seeded(10 + i), steps=3
        )
        assert np.abs(together[row] - alone).max() < 1e-4
    assert np.abs(together[0] - together[1]).max() > 1e-2  # and the pictures do differ


def test_only_a_noise_aware_network_is_given_the_noise_level():
    x, z, t = normal(2, 4, 16, 16), normal(2, 16, 2, 2, seed=1), np.array([1.0, 0.5])
    for noise_aware in (True, False):
        engine = TorchEngine(tiny_cascade(noise_aware=noise_aware))
        told = (prepare(engine, z, np.full_like(z, level), (16, 16)) for level in (0, 0.5))
        quiet, loud = (denoise(engine, x, t, condition)[0] for condition in told)
        assert np.array_equal(quiet, loud) != noise_aware


def test_three_programs_give_the_same_picture_as_run_and_the_python_api(cli, tiny_model, pictures):
    model = ("--model", tiny_model)
    for name in ("upright", "lying"):
        sent, arrived, out = (pictures / f"{name}.{end}" for end in ("x.sem", "y.sem", "out.png"))
        picture = pictures / f"{name}.png"
        assert cli("send", picture, "-o", sent, *model) == (0, "", "")
        assert cli("channel", sent, "-o", arrived, "--snr", 4, "--seed", 7) == (0, "", "")
        assert cli("receive", arrived, "-o", out, *model, "--steps", 3, "--seed", 7)[:2] == (0, "")
        code, stdout, _ = cli("run", picture, "--snr", 4, "--out", pictures / "run", *model, "--steps", 3, "--seed", 7)
        assert code == 0
        api = Link(load_model(tiny_model))(read_image(picture), snr_db=4, seed=7, steps=3)
        assert np.array_equal(pixels(out), pixels(pictures / "run" / f"{name}.png"))
        assert np.array_equal(pixels(out), to_pixels(api.image))
        assert pixels(out).shape == pixels(picture).shape  # padding never shows
        assert json.loads(stdout)["channel_uses"] == api.sent.content.shape[1] == api.sent.header.channel_uses


def test_a_frame_that_passed_no_channel_is_received_without_noise(cli, pictures):
    sent, out, tiny_model = pictures / "x.sem", pictures / "out.png", pictures / "awake"
    save_model(tiny_cascade(), tiny_model)
    assert cli("send", pictures / "lying.png", "-o", sent, "--model", tiny_model)[0] == 0
    assert cli("receive", sent, "-o", out, "--model", tiny_model, "--steps", 3)[0] == 0
    link = Link(load_model(tiny_model))
    side, x = link.send(read_image(pictures / "lying.png"))
    clean = link.receive(noiseless(x), side, steps=3)
    noisy = link.receive(link.propagate(x, -5.0), side, steps=3)
    assert np.array_equal(pixels(out), to_pixels(clean)) and not np.array_equal(pixels(out), to_pixels(noisy))


def test_the_receiver_chooses_its_seed(cli, pictures):
    arrived, model = pictures / "y.sem", pictures / "awake"
    save_model(tiny_cascade(), model)
    link = Link(load_model(model))
    header, x = link.send(read_image(pictures / "lying.png"))
    received = link.propagate(x, 5.0)
    write_frame(arrived, header, received)
    for i, (flag, seed) in enumerate((((), 0), (("--seed", 0), 0), (("--seed", 2**32 - 1), 2**32 - 1))):
        assert cli("receive", arrived, "-o", pictures / f"{i}.png", "--model", model, "--steps", 3, *flag)[0] == 0
        shown = to_pixels(link.receive(received, header, steps=3, seed=seed))
        assert np.array_equal(pixels(pictures / f"{i}.png"), shown)
        assert np.array_equal(shown, to_pixels(link.receive(received, header, steps=3))) == (seed == 0)
    code, out, err = cli("send", pictures / "lying.png", "-o", arrived, "--seed", 1)
    assert (code, out) == (2, "") and "unrecognized arguments: --seed 1" in err


def test_run_prints_one_json_row_per_picture_in_order_and_nothing_else(cli, tiny_model, pictures):
    given = [pictures / "upright.png", pictures / "lying.png"]
    options = ("--snr", 10, "--model", tiny_model, "--steps", 2)
    code, out, err = cli("run", *given, *options, "--out", pictures / "out", "--seed", 40)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and out.endswith("\n")
    assert [row["image"] for row in rows] == list(map(str, given))
    assert [row["seed"] for row in rows] == [40, 41]
    for row, (height, width) in zip(rows, ((201, 130), (131, 200))):
        assert row.keys() >= set(ROW_KEYS)
        assert (row["height"], row["width"]) == (height, width)
        assert row["channel_uses"] == 192 and row["bandwidth_ratio"] == 192 / (3 * height * width)  # not rounded
        assert (row["channel"], row["snr_db"], row["side_bits"]) == ("awgn", 10, SIDE_BITS)
        assert row["encode_ms"] > 0 and row["decode_ms"] > 0
    # What cannot be had is null, and stderr says why.
    assert [(row["lpips"], row["lpips_vgg"], row["ms_ssim"]) for row in rows] == [(None, None, None)] * 2
    for reason in ("lpips and lpips_vgg are null: no LPIPS weights", "lying.png is null: it needs sides"):
        assert err.count(reason) == 1
    second = cli("run", given[1], *options, "--out", pictures / "again", "--seed", 41)
    assert np.array_equal(pixels(pictures / "out" / "lying.png"), pixels(pictures / "again" / "lying.png"))
    assert json.loads(second[1])["psnr_db"] == rows[1]["psnr_db"]


def test_seed_factor_and_steps_reach_the_link(tiny_model):
    link, image = Link(load_model(tiny_model, dtype="float32")), to_image(photo(128, 128))
    first, again, other = (link(image, 0.0, seed=s, steps=2) for s in (1, 1, 2))
    assert np.array_equal(first.image, again.image) and not np.array_equal(first.received.y, other.received.y)
    assert np.array_equal(first.sent.content, other.sent.content)  # the transmitter itself is deterministic
    x = first.sent.content
    assert np.mean(np.abs(x) ** 2) == pytest.approx(1, abs=1e-5)
    assert link.send(image, factor=1.0).content.shape == (1, 128) and x.shape == (1, 72)
    assert not np.array_equal(first.image, link(image, 0.0, seed=1, steps=3).image)


def test_zero_is_no_factor_and_no_number_of_steps(tiny_model):
    """And not taken for "the default"."""
    link, image = Link(load_model(tiny_model)), to_image(photo(96, 128))
    with pytest.raises(InputError, match="factor"):
        link.send(image, factor=0)
    header, x = link.send(image)
    with pytest.raises(InputError, match="^0 diffusion steps; a picture takes 1 or more"):
        link.receive(noiseless(x), header, steps=0)


def test_importing_the_package_does_not_import_torch():
    program = "import sys, semcast, semcast.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_models_reports_the_official_parameter_counts(cli):
    code, out, err = cli("models", "--json")
    assert code == 0, err
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    for name, stage_b in (("stable-cascade-lite", 699_471_248), ("stable-cascade-big", 1_562_941_136)):
        assert rows[name]["parts"] == {"encoder": 20_197_968, "stage_b": stage_b, "stage_a": 18_406_894}
        assert rows[name]["parameters"] == sum(rows[name]["parts"].values())
    assert rows["small"]["fetched"] and rows["small"]["size_bytes"] < 30 * 2**20


def test_a_network_that_cannot_be_compiled_runs_as_it_is(monkeypatch, capsys):
    plain, cascade = tiny_cascade(), tiny_cascade()
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda *args: 1 / 0)
    compile_networks(cascade)
    side = header(64, 64)
    received, engines = noiseless(complex_normal(1, side.channel_uses)), (TorchEngine(plain), TorchEngine(cascade))
    pictures = [receive_symbols(received, side, 1.0, engine, seeded(0), steps=2) for engine in engines]
    assert np.array_equal(*pictures)
    complaints = capsys.readouterr().err.splitlines()
    once = "semcast: not compiled (division by zero); going on without"
    assert complaints == [once, once]  # for Stage B and for Stage A


def test_seeds_that_differ_in_any_bit_give_different_noise():
    seeds = [0, 1, 256, 2**16, 2**24, 2**31, 2**32 - 1]
    first = [stream(seed, name).random() for seed in seeds for name in ("channel", "receiver")]
    assert len(set(first)) == len(first)
    uniform = np.array([stream(seed, "loss").random() for seed in range(2000)])
    assert (uniform < 0.01).mean() == pytest.approx(0.01, abs=4 * (0.01 / 2000) ** 0.5)
