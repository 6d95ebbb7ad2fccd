"""Training: a run depends on its settings and data alone, even if it is interrupted; the losses; the pictures."""

import json
import math
import os
import shutil
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY_ENHANCEMENT, photo, tiny_cascade, tiny_config
from PIL import Image
from safetensors.torch import load_file, save
from torch.nn import functional as F

from semcast import randomness
from semcast.cascade.checkpoint import load_cascade
from semcast.cascade.config import ENHANCEMENT, NETWORKS
from semcast.cascade.denoiser import denoise, prepare
from semcast.cascade.model import Cascade
from semcast.cascade.torch_engine import TorchEngine
from semcast.channels.noise import awgn
from semcast.errors import InputError
from semcast.files import find_pictures
from semcast.frame import noiseless
from semcast.images import MAX_FILE_BYTES, SUFFIXES, to_pixels
from semcast.link import Link
from semcast.training import losses, phases
from semcast.training import train as training
from semcast.training.config import PHASES, PRESETS, TrainConfig
from semcast.training.critic import Critic
from semcast.training.data import Photos
from semcast.training.enhancement import base_picture, heard, with_enhancement
from semcast.training.train import learning_rate, train, update_ema, with_weights
from semcast.transmitter import encode, unit_power

STEPS, SAVED = 5, 2  # steps of a run, and between checkpoints; batch statistics are used in the first four


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(seed: int = 0, **changes) -> Cascade:
    """The tiny model, with two steps of sampling to make previews quick."""
    return tiny_cascade(seed, **{"steps": 2} | changes)


def make_step(batch: int, rows: slice = slice(None)) -> losses.Step:
    """The draws of a step for some rows of its batch, by default for the whole batch."""
    return losses.Step(randomness.seeded(1), batch, rows, torch.device("cpu"), torch.ones(losses.BUCKETS))


def config(phase: str = "joint", **changes) -> TrainConfig:
    """A preset with few steps and small crops."""
    quick = dict(
        steps=STEPS,
        batch=2,
        crop=64,
        window=32,
        thumbnail_weight=0.0,
        batch_norm_until=0.7,
        bf16=False,
        warmup=2,
        lr=1e-3,
        save_every=SAVED,
        ema=0.9,
    )
    preset = {"denoise": "scsic-512", "decode": "joint"}.get(phase, phase)
    return replace(PRESETS[preset], **quick | {"phase": phase} | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with four pictures, in folders inside it too."""
    root = tmp_path_factory.mktemp("photos")
    (root / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(("b.png", "a.jpg", "deep/c.webp", "deep/er/D.PNG")):
        Image.fromarray(photo(80 + 8 * i, 100, seed=i)).save(root / name)
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def photos(folder) -> Photos:
    return Photos([folder])


def fail_at(monkeypatch, phase: str, step: int, fault) -> None:
    """Replace the losses of one step of a run by `fault(losses)`."""
    loss, calls = phases.LOSSES[phase], iter(range(STEPS))

    def faulty(*args):
        found = loss(*args)
        return fault(found) if next(calls) == step else found

    monkeypatch.setitem(phases.LOSSES, phase, faulty)


def interrupt(losses):
    raise KeyboardInterrupt


def with_dropout():
    """The tiny model with every network, and with dropout, which draws from torch's global generator."""
    return tiny(stage_b=replace(tiny_config().stage_b, dropout=(0.1,) * 4), enhancement=TINY_ENHANCEMENT)


def log(run) -> list[dict]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time_s", "wait_s")} for row in rows]


def files(run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.iterdir())}


def interrupted(tmp_path, monkeypatch, photos, vgg, at: int = 3):
    """The folder of a joint run that was interrupted in step `at`."""
    with monkeypatch.context() as patch:
        fail_at(patch, "joint", at, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), photos, config(), tmp_path / "run", vgg, progress=False)
    return tmp_path / "run"


def test_every_phase_has_a_loss_and_every_loss_a_phase():
    assert PHASES.keys() == phases.LOSSES.keys()
    assert all(phase.learns and set(phase.learns) <= {*NETWORKS, ENHANCEMENT} for phase in PHASES.values())
    assert {preset.phase for preset in PRESETS.values()} == PHASES.keys()


@pytest.mark.parametrize(
    "phase, adversarial", [*((phase, 0.0) for phase in PHASES), ("autoencoder", 0.1), ("fewstep", 0.1)]
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(phase, adversarial, tmp_path, monkeypatch, photos, vgg):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = config(phase, adversarial_weight=adversarial)
    train(with_dropout(), photos, settings, whole, vgg, progress=False)
    with monkeypatch.context() as patch:
        fail_at(patch, phase, 3, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(with_dropout(), photos, settings, parts, vgg, progress=False)
    assert json.loads((parts / "last" / "state.json").read_text())["step"] == 2
    assert not (parts / "model").exists()
    torch.manual_seed(99)  # neither the global generator nor the weights before resuming may matter
    cascade = with_dropout()
    for network in PHASES[phase].learns:
        for tensor in getattr(cascade, network).state_dict().values():
            tensor.zero_()
    assert train(cascade, photos, settings, parts, vgg, resume=True, progress=False) == parts / "model"

    expected = log(whole)
    assert [row["step"] for row in expected] == list(range(STEPS))
    assert all(math.isfinite(row["loss"]) and row["grad"] > 0 for row in expected)
    assert log(parts) == expected  # with one row for step 2, which was done twice
    assert files(parts / "model") == files(whole / "model")
    assert files(parts / "last") == files(whole / "last")
    frozen = {*NETWORKS, ENHANCEMENT} - set(PHASES[phase].learns)
    model, before = load_cascade(parts / "model").state_dict(), with_dropout().state_dict()
    same = {k for k, v in before.items() if torch.equal(v, model[k])}
    assert {k for k in before if k.split(".")[0] in frozen} <= same  # frozen networks do not change
    assert all(any(k.startswith(name) for k in before.keys() - same) for name in PHASES[phase].learns)


def test_a_model_gets_layers_that_change_no_picture_until_they_are_trained(tmp_path, photos, vgg):
    start = tiny()
    with_layers = with_enhancement(start, seed=3)
    assert with_layers.config.enhancement.exists and with_enhancement(with_layers, seed=4) is with_layers
    assert all(torch.equal(v, with_layers.state_dict()[k]) for k, v in start.state_dict().items())
    again = with_enhancement(start, seed=3).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in with_layers.state_dict().items())
    link, image = Link(TorchEngine(with_layers)), np.random.default_rng(0).random((1, 3, 128, 128), np.float32)
    (whole, x), (base, y) = link.send(image, rungs=(1, 24)), link.send(image)
    assert np.array_equal(link.receive(noiseless(x), whole), link.receive(noiseless(y), base))
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = base_picture(with_layers, image, make_step(2), config("enhancement"))
    assert (together - base_again(with_layers, image)).abs().max() < 1e-5 < together.std()


def base_again(cascade: Cascade, images):
    """The base does not depend on how the batch is split: row by row, with the draws of the whole batch."""
    rows = [slice(i, i + 1) for i in range(len(images))]
    return torch.cat([base_picture(cascade, images[r], make_step(2, r), config("enhancement")) for r in rows])


def test_rungs_that_are_not_sent_are_not_known(vgg):
    layer = unit_power(torch.randn(3, 16, 4, 4, generator=torch.Generator().manual_seed(0)))
    settings = config("enhancement", fading=0.0, erasures=0.0)
    z, noise = heard(layer, torch.tensor([-3.0, 3.0, 9.0]), torch.full((3,), 30.0), make_step(3), settings)
    for row, sent in zip(range(3), (0, 3, 8)):
        known = noise[row].reshape(2, 8, -1).max(dim=2).values < 1  # channels p and p + 8
        assert known.tolist() == [[p < sent for p in range(8)]] * 2
    assert not z[noise == 1].any() and (z[2] - layer[2]).abs().max() < 0.3


def test_the_thumbnail_loss_is_zero_at_the_true_latent_and_grows_with_the_error(vgg):
    """The pictures are a linear map of their latents, so the fit is exact. LPIPS needs crops of 128 pixels."""
    g = torch.Generator().manual_seed(0)
    target = torch.randn(2, 4, 32, 32, generator=g)
    images = F.interpolate(torch.einsum("bchw,cd->bdhw", target, torch.rand(4, 3, generator=g)) + 0.5, scale_factor=4)
    loss = lambda error: losses.thumbnail_loss(target + error, target, images, make_step(2), config(), vgg).item()
    values = [loss(error) for error in (0.0, 0.1, 0.3)]
    assert values[0] < 1e-4 < values[1] < values[2]
    with pytest.raises(InputError, match="thumbnail_weight = 1.0, allowed: 0 for crops below 128"):
        config(thumbnail_weight=1.0)


def test_the_thumbnail_loss_is_part_of_the_training_loss(tmp_path, photos, vgg):
    settings = config(steps=2, crop=128, window=0, thumbnail_weight=1.0)
    train(tiny(), photos, settings, tmp_path, vgg, progress=False)
    assert all(row["loss"] == pytest.approx(row["thumbnail"] + 0.5 * row["latent"]) for row in log(tmp_path))


@pytest.mark.parametrize("phase, rows", [("autoencoder", 2), ("joint", 4)])
def test_previews_show_the_pictures_and_what_comes_back(phase, rows, tmp_path, photos, vgg):
    """Through Stage A alone, or over the link at three SNRs."""
    train(tiny(), photos, config(phase, steps=1), tmp_path, vgg, progress=False)
    sheet = np.asarray(Image.open(tmp_path / "samples" / "000001.png"))
    assert sheet.shape == (rows * 64, 4 * 64, 3)
    sent = photos.crops(64, 4, training.step_generator(0, 0, training.PREVIEW))
    assert np.array_equal(sheet[:64], np.concatenate([to_pixels(image[None]) for image in sent.numpy()], axis=1))
    pictures = sheet.reshape(rows, 64, 4, 64, 3).swapaxes(1, 2).reshape(rows * 4, -1)
    assert len(np.unique(pictures, axis=0)) == rows * 4


def test_the_critic_and_the_model_each_learn_from_their_own_loss_only(vgg):
    torch.manual_seed(0)
    critic, images = Critic(), torch.rand(2, 3, 48, 48, requires_grad=True)
    terms = critic.losses(vgg.maps(images), vgg.maps(torch.rand(2, 3, 48, 48)))
    gradient = lambda name, of: torch.autograd.grad(terms[name], of, retain_graph=True, allow_unused=True)
    weights = list(critic.parameters())
    assert gradient("adversarial", images)[0].any()
    assert all(g.any() for g in gradient("critic", weights) if g.ndim > 1)
    assert gradient("critic", images) == (None,) and {*gradient("adversarial", weights)} == {None}


def test_a_critic_learns_to_tell_flat_windows_from_noisy_ones(vgg):
    torch.manual_seed(0)
    critic = Critic()
    optimiser = torch.optim.AdamW(critic.parameters(), 1e-3)
    flat, noisy = vgg.maps(torch.rand(4, 3, 1, 1).expand(4, 3, 32, 32)), vgg.maps(torch.rand(4, 3, 32, 32))
    assert critic.losses(flat, noisy)["critic"].item() == pytest.approx(6, abs=0.5)  # two hinges on each of three maps
    for _ in range(40):
        optimiser.zero_grad()
        critic.losses(flat, noisy)["critic"].backward()
        optimiser.step()
    assert critic.losses(flat, noisy)["critic"] < 1
    assert critic.losses(flat, noisy)["adversarial"] > 2 > -2 > critic.losses(noisy, noisy)["adversarial"]


def test_pictures_fade_lose_symbols_or_get_only_noise_in_the_shares_asked_for():
    x, snr_db = torch.randn(400, 200, dtype=torch.complex64, generator=seeded(0)), torch.linspace(-2, 22, 400)
    settings = config(fading=0.5, erasures=0.25)
    y, h, noise_var = received = losses.propagate(x, snr_db, make_step(400), settings)
    lost = noise_var.isinf()
    fades, loses = (h != 1).any(dim=1), lost.any(dim=1)
    assert not (fades & loses).any()
    assert fades.float().mean().item() == pytest.approx(0.5, abs=4 * (0.25 / 400) ** 0.5)
    assert loses.float().mean().item() == pytest.approx(0.25, abs=4 * (3 / 16 / 400) ** 0.5)
    power = h[fades].abs().square().mean().item()
    assert power == pytest.approx(1, abs=4 / h[fades].numel() ** 0.5)  # Var |h|^2 = 1
    power = h[fades].mean(dim=1).abs().square().mean().item()
    assert power == pytest.approx(1 / 200, rel=4 / fades.sum().item() ** 0.5)  # each symbol has a gain of its own
    rates = lost[loses].float().mean(dim=1)  # uniform between 0 and 1/2, of variance 1/48
    assert rates.mean().item() == pytest.approx(0.25, abs=4 * (1 / 48 / len(rates)) ** 0.5)
    expected = (10 ** (-snr_db / 10))[:, None].expand_as(noise_var)
    assert torch.allclose(noise_var[~lost], expected[~lost]) and (y[lost] == 0).all()
    noise = ((y - h * x).abs().square() / noise_var)[~lost]
    assert noise.mean().item() == pytest.approx(1, abs=4 / noise.numel() ** 0.5)

    step = make_step(400)
    step.rand(), step.rand()  # which channel, and the rate of erasures
    clean, unaffected = awgn(x, snr_db, step.generators()), ~fades & ~loses
    assert torch.allclose(y[unaffected], clean.y[unaffected])
    alone = losses.propagate(x, snr_db, make_step(400), config(fading=0.0, erasures=0.0))
    assert torch.allclose(alone.y, clean.y) and (alone.h == 1).all()
    rows = slice(100, 150)  # a picture's channel does not depend on how the batch is shared
    part = losses.propagate(x[rows], snr_db[rows], make_step(400, rows), settings)
    assert all(torch.equal(a[rows], b) for a, b in zip(received, part, strict=True))


def test_a_noise_map_added_to_a_model_changes_nothing_until_it_has_learnt():
    b = replace(tiny_config().stage_b, noise_map=False)
    before = tiny(stage_b=b)
    after = training.with_noise_map(before)
    assert training.with_noise_map(after) is after
    x, z = torch.randn(2, 4, 16, 16, generator=seeded(0)), torch.randn(2, 16, 2, 2, generator=seeded(1))
    t, noise = torch.tensor([1.0, 0.5]), torch.rand(2, 16, 2, 2, generator=seeded(2))

    def denoised(cascade, noise):
        return denoise(cascade, x, t, prepare(cascade, z, noise, (16, 16)))[0]

    assert torch.equal(denoised(before, noise), denoised(after, noise))
    torch.nn.init.normal_(after.stage_b.noise_mapper.weight)
    assert not torch.equal(denoised(before, noise), denoised(after, noise))
    # On AWGN all symbols are equally noisy, so the map is zero.
    even = noise.mean(dim=(1, 2, 3), keepdim=True).expand_as(noise)
    assert torch.allclose(denoised(before, even), denoised(after, even), atol=1e-5)


def test_resuming_with_other_frozen_networks_is_refused(tmp_path, monkeypatch, photos, vgg):
    run = interrupted(tmp_path, monkeypatch, photos, vgg)
    with pytest.raises(InputError, match="was run with another stage_a; resume with the same --init"):
        train(tiny(seed=1), photos, config(), run, vgg, resume=True, progress=False)


def test_a_run_is_not_overwritten_without_resume(tmp_path, monkeypatch, photos, vgg):
    run = interrupted(tmp_path, monkeypatch, photos, vgg)
    before = files(run / "last")
    with pytest.raises(InputError, match="run already holds a run; continue it with --resume or choose another --out"):
        train(tiny(), photos, config(), run, vgg, progress=False)
    (run / "last").rename(run / "last.old")  # as after an interrupt between the two renames of `save`
    with pytest.raises(InputError, match="already holds a run"):
        train(tiny(), photos, config(), run, vgg, progress=False)
    assert files(run / "last") == before


@pytest.mark.parametrize("name", ["state.json", "network.safetensors", "ema.safetensors", "optimiser.safetensors"])
def test_a_damaged_checkpoint_is_refused_in_one_line(name, tmp_path, photos, vgg):
    train(tiny(), photos, config(steps=1), tmp_path, vgg, progress=False)
    (tmp_path / "last" / name).write_bytes(b"[]" if name == "state.json" else save({"other": torch.zeros(1)}))
    with pytest.raises(InputError, match=r"^the checkpoint .*last is damaged \(.*\); start again with another --out$"):
        train(tiny(), photos, config(steps=1), tmp_path, vgg, resume=True, progress=False)


def test_resuming_with_other_settings_is_refused(tmp_path, monkeypatch, photos, vgg):
    run = interrupted(tmp_path, monkeypatch, photos, vgg)
    before = files(run / "last"), log(run)
    with pytest.raises(InputError, match=r"was run with other settings \(lr, seed\); resume with the same ones"):
        train(tiny(), photos, config(lr=2e-3, seed=1), run, vgg, resume=True, progress=False)
    assert (files(run / "last"), log(run)) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint(tmp_path, monkeypatch, photos, vgg):
    run, kept = tmp_path / "run", {}

    def poison(losses):
        kept.update(files(run / "last"))
        return {k: v * math.nan for k, v in losses.items()}

    fail_at(monkeypatch, "joint", 3, poison)
    with pytest.raises(InputError, match=r"not finite at step 3 \(seed 0\).* pictures: (a.jpg|b.png|c.webp|D.PNG)"):
        train(tiny(), photos, config(), run, vgg, progress=False)
    assert kept and files(run / "last") == kept
    assert [row["step"] for row in log(run)] == [0, 1, 2]
    assert all(v.isfinite().all() for v in load_file(run / "last" / "network.safetensors").values())
    assert not (run / "model").exists()


def test_the_saved_model_has_the_averaged_weights_and_produces_their_z(tmp_path, photos, vgg):
    cascade, image = tiny(), torch.rand(2, 3, 128, 64, generator=seeded(0))
    folder = train(cascade, photos, config(window=0), tmp_path / "run", vgg, progress=False)
    average = with_weights(cascade, load_file(tmp_path / "run" / "last" / "ema.safetensors"))
    loaded = load_cascade(folder)
    with torch.no_grad():
        z = [encode(image, model.eval().encoder, 0.75) for model in (average, loaded, cascade)]
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in average.state_dict().items())
    # Equal weights at other addresses may use other kernels: rounding of 1e-7 of Z, far below the effect of averaging.
    assert (z[0] - z[1]).abs().max() < 1e-5 * z[0].abs().max() < (z[0] - z[2]).abs().max()
    assert loaded.config == cascade.config and not any(p.requires_grad for p in loaded.parameters())


def test_the_average_of_constant_weights_has_a_closed_form():
    """n steps of e <- d e + (1 - d) w give w + d^n (e - w). Integers are copied."""
    cascade = tiny()
    state = cascade.state_dict()
    start = {k: v + 1 if v.is_floating_point() else v + 7 for k, v in state.items()}
    ema = {k: v.clone() for k, v in start.items()}
    for _ in range(10):
        update_ema(ema, cascade, 0.8)
    for key, weight in state.items():
        if weight.is_floating_point():
            assert torch.allclose(ema[key], weight + 0.8**10, atol=1e-5)
        else:
            assert torch.equal(ema[key], weight)
    constant = {k: v.clone() for k, v in state.items()}
    update_ema(constant, cascade, 0.8)
    assert all(torch.equal(constant[k], v) for k, v in state.items())


def test_the_learning_rate_rises_linearly_and_falls_like_half_a_cosine():
    c = config(steps=300, warmup=100, lr=1e-2, lr_end=0.1)
    assert [learning_rate(c, s) for s in (0, 49, 99, 100)] == pytest.approx([1e-4, 5e-3, 1e-2, 1e-2])
    assert learning_rate(c, 200) == pytest.approx(5.5e-3)  # halfway between lr and lr_end * lr
    assert learning_rate(c, 300) == pytest.approx(1e-3)
    rates = [learning_rate(c, s) for s in range(100, 301)]
    assert rates == sorted(rates, reverse=True)


def test_bad_settings_are_all_named_in_one_message():
    with pytest.raises(InputError, match="crop = 100, allowed: a multiple of 64; .*ema = 1.0, allowed: 0 to below 1"):
        config(crop=100, window=32, ema=1.0)
    phases = "autoencoder or encoder or decode or joint or fewstep or denoise or enhancement"
    with pytest.raises(InputError, match=f"^bad training settings: phase = 'both', allowed: {phases}$"):
        TrainConfig(phase="both", steps=1, lr=1e-3)


@pytest.mark.parametrize(
    "setting",
    [{"beta2": 2.0}, {"clip": 0.0}, {"seed": 1 << 40}, {"window": 4}, {"grid_weight": math.nan}, {"from_noise": 1.5}],
)
def test_values_out_of_range_are_refused(setting):
    (name,) = setting
    allowed = "[^;]*(; not 0 for autoencoder)?"
    with pytest.raises(InputError, match=f"^bad training settings: {name} = .*, allowed: {allowed}$"):
        config(**setting)


def test_photos_are_found_in_folders_and_shards_in_a_fixed_order(folder, tmp_path):
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("deep/c.webp", "b.png", "notes.txt", "a.jpg"):
            tar.add(folder / name, arcname=name)
    sources = [folder, shard, folder / "b.png"]
    found = [item[0] for item in Photos(sources).items]
    assert found == ["a.jpg", "b.png", "c.webp", "D.PNG", "deep/c.webp", "b.png", "a.jpg", "b.png"]
    assert [item[0] for item in Photos(sources).items] == found
    pictures = Photos(sources)
    for in_folder, in_shard in ((0, 6), (1, 5), (2, 4)):
        assert np.array_equal(pictures.read(in_folder), pictures.read(in_shard))
    assert np.array_equal(pictures.read(7), np.asarray(Image.open(folder / "b.png")))
    shards = tmp_path / "shards"
    (shards / "more").mkdir(parents=True)
    shard.rename(shards / "more" / "x.tar")
    shutil.copy(folder / "b.png", shards / "z.png")
    assert [item[0] for item in Photos([shards]).items] == ["deep/c.webp", "b.png", "a.jpg", "z.png"]


def test_missing_photos_and_damaged_shards_are_refused(tmp_path):
    with pytest.raises(InputError, match="no pictures at .*nowhere: it is neither a folder nor a tar file nor a pic"):
        Photos([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no pictures in"):
        Photos([tmp_path])
    (tmp_path / "broken.tar").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match="cannot read .*broken.tar"):
        Photos([tmp_path / "broken.tar"])


def test_pictures_are_found_behind_links_and_under_every_suffix_and_what_macos_leaves_is_not(folder, tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "__MACOSX").mkdir(parents=True)
    elsewhere.mkdir()
    names = [f"{i}{suffix}" for i, suffix in enumerate(sorted(SUFFIXES))] + ["same.PNG", "same.png"]
    for name in (*names, "._same.png", "__MACOSX/same.png", ".DS_Store", "notes.txt"):
        (root / name).write_bytes(b"?")
    (elsewhere / "z.jpeg").write_bytes(b"?")
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)  # a circle
    (root / "again").symlink_to(root)
    found = find_pictures(root)
    assert sorted(path.name for path in found) == sorted([*names, "z.jpeg"]) and found == sorted(found)
    shard = tmp_path / "mac.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("./a.jpg", "./._a.jpg", "__MACOSX/./a.jpg", "in/__MACOSX/a.jpg"):
            tar.add(folder / "a.jpg", arcname=name)
    assert [item[0] for item in Photos([shard]).items] == ["./a.jpg"]
    (root / "._mac.tar").write_bytes(b"?")
    assert len(Photos([root])) == len(found)


@pytest.fixture
def damaged(folder, tmp_path):
    """Five pictures, of which 1.jpg is cut off, and so is member 1.jpg of a tar file of four."""
    root = tmp_path / "damaged"
    root.mkdir()
    for i in range(5):
        Image.fromarray(photo(90, 100, seed=i)).save(root / f"{i}.jpg")
    cut = (root / "1.jpg").read_bytes()
    (root / "1.jpg").write_bytes(cut[: len(cut) // 2])
    with tarfile.open(tmp_path / "damaged.tar", "w") as tar:
        for i in range(4):
            tar.add(root / f"{i}.jpg", arcname=f"{i}.jpg")
    return root


def test_a_damaged_picture_is_named_once_and_the_next_one_takes_its_place(damaged, tmp_path, caplog):
    both = [damaged, tmp_path / "damaged.tar"]
    first, second, found = Photos(both), Photos(both), []
    second.decode_all(threading.Event())  # before any step, as the check in the background may
    for step in range(3):
        crops = [each.crops(64, 6, randomness.seeded(step)) for each in (first, second)]
        assert torch.equal(*crops)
        found += first.picks(6, randomness.seeded(step))
    assert {1, 6} & set(found) and first.unreadable <= second.unreadable == {1, 6}
    draws = randomness.seeded(9).random(4)
    assert np.array_equal(first.crop(64, 1, *draws), first.crop(64, 2, *draws))
    assert np.array_equal(first.crop(64, 6, *draws), first.crop(64, 7, *draws))
    lines = [record.message for record in caplog.records if record.name == "semcast"]
    assert len(lines) == 4 and lines[0].startswith(f"{damaged / '1.jpg'}: damaged (") and lines[0].endswith("; skipped")
    assert lines[1].startswith(f"{tmp_path / 'damaged.tar'}:1.jpg: damaged (")
    with pytest.raises(InputError, match="1.jpg: damaged"):
        Photos(both, strict=True).decode_all(threading.Event())
    last = Photos([damaged / "0.jpg", damaged / "1.jpg"])  # after the last picture comes the first
    assert np.array_equal(last.crop(64, 1, *draws), last.crop(64, 0, *draws))


def test_a_place_is_taken_within_its_source(damaged, tmp_path):
    """So that the weights of sources hold."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("0.jpg", "1.jpg"):
        shutil.copy(damaged / name, few)
    photos = Photos([f"{few}:0.5", f"{damaged}:0.5"])
    assert not photos.readable(1) and photos.shown(1) == 0
    assert not photos.readable(3) and photos.shown(3) == 4


def test_what_does_not_look_like_a_picture_is_found_before_the_first_step(folder, tmp_path, caplog):
    root = shutil.copytree(folder, tmp_path / "copy")
    (root / "page.jpg").write_text("<!doctype html>")
    (root / "empty.png").write_bytes(b"")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.png")  # would be waited for without end
    (root / "large.png").write_bytes((root / "b.png").read_bytes())
    os.truncate(root / "large.png", MAX_FILE_BYTES + 1)
    photos = Photos([root])
    photos.check_heads()
    bad = {photos.items[i][0] for i in photos.unreadable}
    assert bad == {"page.jpg", "empty.png", "gone.png", "large.png"} | {"pipe.png"} & set(os.listdir(root))
    lines = [record.message for record in caplog.records if record.name == "semcast"]
    assert len(lines) == len(bad) + 1 and lines[-1] == f"only 4 of {len(photos)} pictures can be read"
    assert all("\n" not in line for line in lines)
    photos.crops(64, 6, randomness.seeded(1))
    photos.check_heads()
    assert len(caplog.records) == len(bad) + 1  # each is named once, and so is how many are left
    with pytest.raises(InputError, match="empty.png"):
        Photos([root], strict=True).check_heads()
    none = Photos([root / "page.jpg", root / "empty.png"])
    with pytest.raises(InputError, match="^none of the 2 pictures can be read$"):
        none.check_heads()
    with pytest.raises(InputError, match="^none of the 2 pictures can be read$"):
        Photos([root / "page.jpg", root / "empty.png"]).crops(64, 1, randomness.seeded(0))


def test_a_run_over_damaged_pictures_has_the_same_losses_whenever_they_are_found(damaged, tmp_path, monkeypatch, vgg):
    run = lambda name, **how: train(tiny(), Photos([damaged]), config(), tmp_path / name, vgg, progress=False, **how)
    decode_all = Photos.decode_all
    with monkeypatch.context() as patch:  # found at the steps
        patch.setattr(Photos, "decode_all", lambda self, stop: None)
        run("late")
    with monkeypatch.context() as patch:  # found before them
        check = Photos.check_heads
        patch.setattr(Photos, "check_heads", lambda self: (check(self), decode_all(self, threading.Event())))
        run("early")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_at(patch, "joint", 3, interrupt)
        run("parts")
    run("parts", resume=True)
    assert log(tmp_path / "late") == log(tmp_path / "early") == log(tmp_path / "parts")


def test_a_strict_run_stops_at_a_damaged_picture(damaged, tmp_path, vgg, monkeypatch):
    strict, decode_all = Photos([damaged], strict=True), Photos.decode_all
    strict.picks = lambda count, generator: [0] * count  # no step needs it: the background check finds it
    slow = lambda self, stop: (stop.wait(3), decode_all(self, threading.Event()))  # after the steps
    monkeypatch.setattr(Photos, "decode_all", slow)
    with pytest.raises(InputError, match="1.jpg: damaged"):
        train(tiny(), strict, config(steps=1), tmp_path / "run", vgg, progress=False)
    assert not (tmp_path / "run" / "model").exists()


def test_the_command_line_stops_before_the_first_step_if_it_is_strict(damaged, tiny_model, tmp_path, cli):
    (damaged / "page.jpg").write_text("<!doctype html>")
    command = ["train", "--preset", "scsic-512", "--init", tiny_model, "--data", damaged, "--out", tmp_path / "run"]
    code, _, error = cli(*command, "--strict")
    assert code == 2 and error.count("\n") == 1 and error.startswith(f"semcast: {damaged / 'page.jpg'}")
    assert not (tmp_path / "run").exists()


def test_resuming_with_other_data_is_refused_unless_told(folder, tmp_path, monkeypatch, vgg):
    data = shutil.copytree(folder, tmp_path / "data")
    run = interrupted(tmp_path, monkeypatch, Photos([data]), vgg)
    resume = lambda sources, **how: train(
        tiny(), Photos(sources), config(), run, vgg, resume=True, progress=False, **how
    )
    before = files(run / "last"), log(run)
    refused = lambda change: pytest.raises(InputError, match=rf"other data \({change}\); .* or give --other-data$")
    moved = data.rename(tmp_path / "moved")
    with refused("now 4 pictures more"):
        resume([moved, folder])
    with refused("now 3 pictures fewer"):
        resume([moved / "b.png"])
    with refused("now other weights of the sources"):
        resume([f"{moved / 'a.jpg'}:0.5", f"{moved / 'b.png'}:0.25", f"{moved / 'deep'}:0.25"])
    (moved / "a.jpg").rename(moved / "aa.jpg")
    with refused("now as many pictures of other names"):
        resume([moved])
    (moved / "aa.jpg").rename(moved / "a.jpg")
    with open(moved / "a.jpg", "ab") as file:
        file.write(b"\0")
    with refused("now the same names, but files of other sizes"):
        resume([moved])
    assert (files(run / "last"), log(run)) == before
    state = json.loads((run / "last" / "state.json").read_text())
    resume([moved], other_data=True)
    assert len(log(run)) == STEPS
    now = json.loads((run / "last" / "state.json").read_text())
    assert now["data"]["sizes"] != state["data"]["sizes"] and now["data"]["names"] == state["data"]["names"]


def test_data_that_moved_are_the_same_data(folder, tmp_path, monkeypatch, vgg):
    data = shutil.copytree(folder, tmp_path / "data")
    run = interrupted(tmp_path, monkeypatch, Photos([data]), vgg)
    data.rename(tmp_path / "moved")
    train(tiny(), Photos([tmp_path / "moved"]), config(), run, vgg, resume=True, progress=False)
    assert len(log(run)) == STEPS


def test_crops_depend_on_the_generator_only(folder, photos, tmp_path):
    first = photos.crops(64, 6, randomness.seeded(1))
    assert first.shape == (6, 3, 64, 64) and 0 <= first.min() and first.max() <= 1
    photos.crops(128, 3, randomness.seeded(5))  # neither what was read before nor where the pictures are may matter
    shutil.copytree(folder, tmp_path / "copy")
    torch.manual_seed(4)
    before = torch.get_rng_state()
    assert torch.equal(photos.crops(64, 6, randomness.seeded(1)), first)
    assert torch.equal(Photos([tmp_path / "copy"]).crops(64, 6, randomness.seeded(1)), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(photos.crops(64, 6, randomness.seeded(2)), first)
    assert training.step_generator(0, 1, 0).random() != training.step_generator(1, 0, 0).random()


def test_linear_z_has_channels_of_equal_variance_and_keeps_as_much_as_16_numbers_can(photos):
    images = torch.cat([photos.crops(256, 8, randomness.seeded(i)) for i in range(4)])
    basis = losses.linear_basis(images, 0.75)
    z = losses.linear_z(images, 0.75, basis)
    assert z.shape == (32, 16, 6, 6)
    flat = z.movedim(1, -1).reshape(-1, 16)
    assert flat.mean(dim=0).abs().max() < 1e-3
    assert flat.square().mean(dim=0) == pytest.approx(1, abs=0.02)  # what the encoder's last layer demands
    patches, (h, w) = losses.cells(images, 0.75)
    assert (h, w) == (6, 6) and torch.allclose(patches.mean(dim=0), basis[0], atol=1e-5)
    back = torch.linalg.lstsq(F.pad(flat, (0, 1), value=1.0), patches).solution
    error = (F.pad(flat, (0, 1), value=1.0) @ back - patches).square().sum() / len(patches)
    spectrum = torch.linalg.eigvalsh(torch.cov(patches.T))
    # Eckart and Young: no linear map to 16 numbers keeps more.
    assert error.item() == pytest.approx(spectrum[:-16].sum().item(), rel=0.02)


def test_the_encoder_learns_linear_z(tmp_path, photos):
    settings = config("encoder", steps=40, batch=8, lr=1e-2, window=0, save_every=40)
    train(tiny(), photos, settings, tmp_path, progress=False)
    found = [row["linear"] for row in log(tmp_path)]
    assert sum(found[-5:]) < 0.8 * sum(found[:5])


def test_the_spectrum_loss_detects_a_weave_and_ignores_blur(photos):
    truth = torch.cat([photos.crops(96, 8, randomness.seeded(i)) for i in range(2)])
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    weave = 0.05 * torch.cos(2 * math.pi * (x + y) / 8)
    assert losses.spectrum_loss(truth, truth) == 0
    assert losses.spectrum_loss(truth + weave, truth) > 0.1
    blurred = F.interpolate(F.avg_pool2d(truth, 4), size=96, mode="bilinear")
    assert losses.spectrum_loss(blurred, truth) < 0.02


def test_the_grid_loss_is_the_deviation_of_what_repeats_every_8_pixels(photos):
    truth = torch.cat([photos.crops(96, 8, randomness.seeded(i)) for i in range(2)])
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    grey, waves = torch.full((1, 3, 96, 96), 0.5), lambda period: 0.05 * torch.cos(2 * math.pi * x / period)
    found = losses.grid_loss(grey + waves(4)).item()
    assert found == pytest.approx(0.05 / 2**0.5, rel=0.15)  # what repeats every 4 pixels repeats every 8
    assert losses.grid_loss(grey + waves(6)).item() < 0.002
    assert losses.grid_loss(truth + waves(4)) > 3 * losses.grid_loss(truth)


@pytest.mark.parametrize("phase", ["joint", "decode"])
def test_a_trained_model_claims_neither_the_figures_nor_the_encoder_of_its_start(phase):
    start = tiny_cascade(same_as="7b7a116ca5bd6cdb", understands=("dc0d",))
    trained = training.make_state(start, config(phase), "cpu").cascade.config
    assert trained.same_as == "" and trained.understands == (() if phase == "joint" else ("dc0d",))
