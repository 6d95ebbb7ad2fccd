"""Training: a run depends on its settings and data alone, even if it is interrupted."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save
from tiny import tiny_cascade, tiny_config
from training_runs import (
    STEPS,
    config,
    fail_at,
    files,
    interrupt,
    interrupted,
    log,
    make_step,
    seeded,
    tiny,
    with_dropout,
)

from semcast.cascade.checkpoint import load_cascade
from semcast.cascade.config import ENHANCEMENT, NETWORKS, RESTORER
from semcast.cascade.denoiser import denoise, prepare
from semcast.cascade.model import Cascade
from semcast.cascade.torch_engine import TorchEngine
from semcast.errors import InputError
from semcast.frame import noiseless
from semcast.images import to_pixels
from semcast.link import Link
from semcast.training import phases
from semcast.training import train as training
from semcast.training.config import PHASES, PRESETS, TrainConfig
from semcast.training.enhancement import base_picture
from semcast.training.train import learning_rate, train, update_ema, with_network, with_weights
from semcast.transmitter import encode


def test_every_phase_has_a_loss_and_every_loss_a_phase():
    assert PHASES.keys() == phases.LOSSES.keys()
    assert all(phase.learns and set(phase.learns) <= {*NETWORKS, ENHANCEMENT, RESTORER} for phase in PHASES.values())
    assert {preset.phase for preset in PRESETS.values()} == PHASES.keys()


@pytest.mark.parametrize(
    "phase, adversarial",
    [
        *(pytest.param(phase, 0.0, marks=pytest.mark.slow) for phase in PHASES),
        pytest.param("autoencoder", 0.1, marks=pytest.mark.slow),
        ("fewstep", 0.1),
    ],
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
    frozen = {*NETWORKS, ENHANCEMENT, RESTORER} - set(PHASES[phase].learns)
    model, before = load_cascade(parts / "model").state_dict(), with_dropout().state_dict()
    same = {k for k, v in before.items() if torch.equal(v, model[k])}
    assert {k for k in before if k.split(".")[0] in frozen} <= same  # frozen networks do not change
    assert all(any(k.startswith(name) for k in before.keys() - same) for name in PHASES[phase].learns)


def test_a_model_gets_layers_that_change_no_picture_until_they_are_trained(tmp_path, photos, vgg):
    start = tiny()
    with_layers = with_network(start, ENHANCEMENT, seed=3)
    assert with_layers.config.enhancement.exists and with_network(with_layers, ENHANCEMENT, seed=4) is with_layers
    assert all(torch.equal(v, with_layers.state_dict()[k]) for k, v in start.state_dict().items())
    again = with_network(start, ENHANCEMENT, seed=3).state_dict()
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
    phases = "autoencoder or encoder or decode or joint or fewstep or denoise or enhancement or restorer"
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


@pytest.mark.parametrize("phase", ["joint", "decode"])
def test_a_trained_model_claims_neither_the_figures_nor_the_encoder_of_its_start(phase):
    start = tiny_cascade(same_as="7b7a116ca5bd6cdb", understands=("dc0d",))
    trained = training.make_state(start, config(phase), "cpu").cascade.config
    assert trained.same_as == "" and trained.understands == (() if phase == "joint" else ("dc0d",))
