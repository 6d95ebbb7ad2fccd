"""Fine-tuning Stage B on noisy Z: the paper's loss, shared batches, cached latents, several sources of pictures."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file
from tiny import photo, tiny_cascade, tiny_config
from training_runs import config, fail_at, interrupt, log, make_step, seeded

from semcast import randomness
from semcast.cascade.checkpoint import load_cascade, save_model
from semcast.cascade.config import NETWORKS
from semcast.cascade.denoiser import denoise, prepare
from semcast.cascade.diffusion import add_noise, log_snr, scales, x0_and_eps
from semcast.cli import build_parser
from semcast.errors import InputError
from semcast.training import latents, losses, run_folder
from semcast.training.config import PRESETS, with_settings
from semcast.training.data import Photos, step_generator
from semcast.training.processes import shares
from semcast.training.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        Image.fromarray(photo(90, 120, seed=i)).save(root / f"{i}.png")
    return root


def official(**changes):
    """A tiny model of the official kind: it predicts epsilon, is not told the noise, and is guided."""
    stage_b = replace(tiny_config().stage_b, noise_map=False)
    return tiny_cascade(prediction="epsilon", noise_aware=False, guidance=1.1, steps=2, stage_b=stage_b, **changes)


def test_the_command_line_knows_the_presets():
    for name in PRESETS:
        args = build_parser().parse_args(["train", "--preset", name, "--data", "photos", "--out", "run"])
        assert args.preset == name


def test_the_scsic_presets_are_the_papers_recipe():
    for name, side in (("scsic-512", 512), ("scsic-1024", 1024)):
        c = PRESETS[name]
        assert (c.phase, c.steps, c.batch, c.crop) == ("denoise", 15_000, 4, side)
        assert (c.lr, c.lr_end) == (1e-4, 1)  # constant
        assert (c.snr_min, c.snr_max) == (1, 20)
        assert (c.factor_min, c.factor_max) == (0.75, 0.75)  # Z is [16, 3/128 side, 3/128 side]


def test_the_loss_of_a_network_that_predicts_no_noise_is_the_power_of_the_noise(folder):
    """The error of eps = 0 is the mean square of white noise: 1, with a standard error of sqrt(2 / n)."""
    cascade = official()
    for p in cascade.stage_b.clf.parameters():
        p.zero_()
    images = Photos([folder]).crops(64, 8, randomness.seeded(0))
    terms = losses.denoise_loss(cascade, images, make_step(8), config("denoise", batch=8))
    assert terms["error"].mean().item() == pytest.approx(1, abs=4 * (2 / (8 * 4 * 16 * 16)) ** 0.5)
    assert torch.equal(terms["denoise"], terms["error"])  # the adaptive weights are 1
    step = make_step(8)
    step.buckets = torch.full((losses.BUCKETS,), 0.5)
    weighted = losses.denoise_loss(cascade, images, step, config("denoise", batch=8))
    assert torch.equal(weighted["error"], terms["error"]) and torch.equal(weighted["denoise"], 2 * terms["error"])


def test_a_network_that_predicts_x0_is_compared_with_x0(folder):
    cascade = official()
    cascade.config = replace(cascade.config, prediction="x0")
    for p in cascade.stage_b.clf.parameters():
        p.zero_()
    images = Photos([folder]).crops(64, 8, randomness.seeded(0))
    terms = losses.denoise_loss(cascade, images, make_step(8), config("denoise", batch=8))
    assert torch.allclose(terms["error"], cascade.stage_a.encode(images).square().mean(dim=(1, 2, 3)), rtol=1e-5)


def test_guidance_is_used_in_sampling_but_not_in_training():
    x, z = torch.randn(2, 4, 16, 16, generator=seeded(0)), torch.randn(2, 16, 2, 2, generator=seeded(1))
    t, noise = torch.tensor([0.9, 0.5]), torch.zeros(2, 16, 2, 2)
    cascade = official()

    def eps(guidance, guided=True):
        cascade.config = replace(cascade.config, guidance=guidance)
        return denoise(cascade, x, t, prepare(cascade, z, noise, (16, 16), guided))[1]

    assert torch.equal(eps(1.1, guided=False), eps(1.0))
    assert not torch.equal(eps(1.1), eps(1.0))


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_predictions_agree_with_diffusers(prediction):
    x, output = torch.randn(2, 4, 8, 8, generator=seeded(0)), torch.randn(2, 4, 8, 8, generator=seeded(1))
    t = torch.tensor([0.3, 0.3])
    a, _ = scales(t)
    scheduler = DDIMScheduler(
        num_train_timesteps=1,
        prediction_type={"v": "v_prediction"}.get(prediction, prediction),
        clip_sample=False,
        set_alpha_to_one=True,
    )
    scheduler.alphas_cumprod = (a[:1] ** 2).flatten()
    scheduler.set_timesteps(1)
    theirs = scheduler.step(output, 0, x).pred_original_sample
    ours, eps = x0_and_eps(output, x, t, prediction)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(add_noise(ours, t, eps), x, atol=1e-5)


def test_pyramid_noise_has_unit_variance_and_the_published_spread_of_means():
    for side, spread in ((256, 0.11), (128, 0.14)):  # standard deviation of an image's mean
        noise = losses.pyramid_noise(torch.empty(24, 4, side, side), [randomness.seeded(i) for i in range(24)])
        assert noise.square().mean().item() == pytest.approx(1, abs=0.03)
        assert noise.mean(dim=(2, 3)).std().item() == pytest.approx(spread, abs=0.03)


def test_the_adaptive_weight_is_one_over_the_running_loss():
    buckets = torch.ones(losses.BUCKETS)
    bucket = losses.buckets_of(torch.tensor([1.0, 0.5, 0.001]))
    snr = log_snr(torch.tensor([1.0, 0.5, 0.001]))
    assert [round((v + 10) / 20 * losses.BUCKETS) for v in snr.tolist()] == pytest.approx(bucket.tolist(), abs=1)
    for _ in range(3):
        losses.update_buckets(buckets, bucket[:1], torch.tensor([0.2]))
    assert buckets[bucket[0]].item() == pytest.approx(0.2 + 0.8 * 0.99**3)
    assert (buckets != 1).sum() == 1


def test_the_adaptive_weight_is_used_and_survives_an_interruption(tmp_path, monkeypatch, folder):
    whole, parts, settings = tmp_path / "whole", tmp_path / "parts", {"adaptive_weight": True, "condition_drop": 0.3}
    c = config("denoise", steps=5, save_every=2, pyramid_noise=True, **settings)
    train(official(), Photos([folder]), c, whole, progress=False)
    rows = log(whole)
    assert rows[0]["denoise"] == pytest.approx(rows[0]["error"])  # all weights are 1 at first
    buckets = load_file(whole / "last" / "optimiser.safetensors")["buckets"]
    assert 0 < (buckets != 1).sum() <= 10

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_at(patch, "denoise", 3, interrupt)
        train(official(), Photos([folder]), c, parts, progress=False)
    saved = load_file(parts / "last" / "optimiser.safetensors")["buckets"]  # after two steps
    assert 0 < (saved != 1).sum() <= 4 and not torch.equal(saved, buckets)
    train(official(), Photos([folder]), c, parts, resume=True, progress=False)
    assert torch.equal(load_file(parts / "last" / "optimiser.safetensors")["buckets"], buckets)
    assert log(parts) == rows


@pytest.mark.parametrize(
    "changes", [{"accumulate": 2}, {"accumulate": 4, "recompute": True}], ids=["in halves", "one by one"]
)
def test_a_batch_in_parts_trains_like_the_whole_batch(tmp_path, folder, changes):
    c = config("denoise", steps=3, batch=4, ema=0.0, adaptive_weight=True)
    whole = train(official(), Photos([folder]), c, tmp_path / "whole", progress=False)
    parts = train(official(), Photos([folder]), replace(c, **changes), tmp_path / "parts", progress=False)
    for a, b in zip(log(whole.parent), log(parts.parent)):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["grad"] == pytest.approx(b["grad"], rel=1e-3)
    a, b = (load_file(f / "stage_b.safetensors") for f in (whole, parts))
    # Where gradients vanish, Adam divides rounding by rounding.
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-3


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path, folder):
    settings = ["steps=2", "crop=64", "window=0", "bf16=false"]
    train(official(), Photos([folder]), with_settings(PRESETS["scsic-512"], settings), tmp_path / "one", progress=False)
    save_model(official(), tmp_path / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = "--multi_gpu --num_processes=2 --num_machines=1 --rdzv_backend=c10d --main_process_ip=127.0.0.1"
    launcher += f" --main_process_port={port} --mixed_precision=no --dynamo_backend=no"
    command = ["-m", "semcast", "train", "--preset", "scsic-512", "--device", "cpu", "--data", folder]
    command += ["--init", tmp_path / "model", "--out", tmp_path / "two"]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launcher.split(), *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for a, b in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["grad"] == pytest.approx(b["grad"], rel=1e-3)


def test_the_rows_of_a_batch_are_shared_evenly_or_not_at_all(tmp_path, folder):
    settings = config("denoise", batch=8, accumulate=2)
    assert shares(settings, 0, 2) + shares(settings, 1, 2) == [slice(i, i + 2) for i in (0, 2, 4, 6)]
    with pytest.raises(InputError, match="batch 3 cannot be shared by 1 processes in 2 parts each"):
        train(official(), Photos([folder]), config("denoise", batch=3, accumulate=2), tmp_path, progress=False)


def test_the_8_bit_optimiser_trains_and_resumes(tmp_path, monkeypatch, folder):
    pytest.importorskip("bitsandbytes")
    c = config("denoise", steps=4, save_every=2, optimiser="adamw8bit")
    train(official(), Photos([folder]), c, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_at(patch, "denoise", 3, interrupt)
        train(official(), Photos([folder]), c, tmp_path / "parts", progress=False)
    saved = load_file(tmp_path / "parts" / "last" / "optimiser.safetensors")
    assert any(v.dtype == torch.uint8 for v in saved.values())
    train(official(), Photos([folder]), c, tmp_path / "parts", resume=True, progress=False)
    assert log(tmp_path / "parts") == log(tmp_path / "whole")


def test_cached_latents_are_those_of_the_crops_and_training_reads_no_picture(tmp_path, monkeypatch, folder):
    pictures = shutil.copytree(folder, tmp_path / "pictures")
    cascade, cache = official(), tmp_path / "cache"
    c = config("denoise", steps=2, cache_crops=2)
    train(cascade, Photos([pictures]), c, tmp_path / "first", cache=cache, progress=False)
    assert len(list(cache.glob("*.safetensors"))) == 10
    photos = Photos([pictures])
    draw = step_generator(c.seed, 3, 17).random(4).tolist()
    image = torch.from_numpy(photos.crop(64, 3, *draw).copy()).permute(2, 0, 1)[None].float() / 255
    held = load_file(cache / "0000003-001.safetensors")
    assert torch.allclose(held["z"], losses.encode(image, cascade.encoder, 0.75)[0], atol=1e-4)
    assert torch.allclose(held["latent"].float(), cascade.stage_a.encode(image)[0], rtol=2e-3, atol=2e-3)
    (cache / "0000003-001.safetensors").unlink()  # an interrupted fill is continued
    latents.fill(cache, cascade, photos, c, "cpu", progress=False)
    assert len(list(cache.glob("*.safetensors"))) == 10
    read, reads = photos.read, []
    monkeypatch.setattr(photos, "read", lambda index: reads.append(index) or read(index))
    train(official(), photos, c, tmp_path / "second", cache=cache, progress=False)
    assert log(tmp_path / "second") == log(tmp_path / "first") and len(reads) == 4  # for the preview
    with pytest.raises(InputError, match="holds latents of another crop, seed; choose another --cache or delete it"):
        latents.fill(cache, cascade, photos, config("denoise", crop=128, seed=1), "cpu", progress=False)
    with pytest.raises(InputError, match="a cache of latents serves the phase denoise, not joint"):
        train(official(), photos, config("joint"), tmp_path / "third", cache=cache, progress=False)


def test_fine_tuning_changes_only_stage_b_and_can_change_what_it_predicts(tmp_path, folder):
    cascade = official()
    before = {k: v.clone() for k, v in cascade.state_dict().items()}
    model = train(cascade, Photos([folder]), config("denoise", steps=2, prediction="v"), tmp_path, progress=False)
    after = {f"{name}.{k}": v for name in NETWORKS for k, v in load_file(model / f"{name}.safetensors").items()}
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"stage_b"} and '"prediction": "v"' in (model / "config.json").read_text()


def test_sources_of_pictures_are_mixed_by_their_weights(folder, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(folder / "0.png", few)
    photos = Photos([f"{few}:0.7", f"{folder}:0.3"])
    picks = np.array(photos.picks(4000, randomness.seeded(0)))
    assert (picks == 0).mean() == pytest.approx(0.7, abs=4 * (0.21 / 4000) ** 0.5)
    assert np.bincount(picks, minlength=6)[1:].min() > 150
    even = np.bincount(Photos([few, folder]).picks(6000, randomness.seeded(0)), minlength=6) / 6000
    assert even == pytest.approx(1 / 6, abs=4 * (5 / 36 / 6000) ** 0.5)
    with pytest.raises(InputError, match="give every source of pictures a weight"):
        Photos([f"{few}:0.7", folder])
    with pytest.raises(InputError, match="the weight of a source must be a number above 0"):
        Photos([f"{few}:-1"])


def test_cityscapes_and_div2k_give_only_their_training_photos(tmp_path, monkeypatch):
    wanted = ("leftImg8bit/train/bonn/a.png", "DIV2K_train_HR/b.png")
    others = (
        "leftImg8bit/val/ulm/c.png",
        "gtFine/train/bonn/a_color.png",
        "DIV2K_valid_HR/d.png",
        "DIV2K_train_LR_bicubic/b.png",
    )
    for i, name in enumerate(wanted + others):
        root = tmp_path / ("city" if "leftImg8bit" in name or "gtFine" in name else "div2k")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(70, 80, seed=i)).save(root / name)
    assert [item[0] for item in Photos([tmp_path / "city"]).items] == ["a.png"]
    assert [item[0] for item in Photos([tmp_path / "div2k"]).items] == ["b.png"]
    assert [item[0] for item in Photos([tmp_path / "city" / "leftImg8bit"]).items] == ["a.png"]
    assert [item[0] for item in Photos([tmp_path / "city"], "val").items] == ["c.png"]  # for the bench
    assert [item[0] for item in Photos([tmp_path / "div2k"], "val").items] == ["d.png"]
    monkeypatch.chdir(tmp_path / "city")
    assert [item[0] for item in Photos(["."]).items] == ["a.png"]
    shutil.rmtree(tmp_path / "city" / "leftImg8bit" / "val")
    with pytest.raises(
        InputError, match=r"^no pictures for val in \., which has others; name the folder of those you want$"
    ):
        Photos(["."], "val")
    named = Photos([tmp_path / "div2k" / "DIV2K_train_HR"], "val")  # a folder of photos is taken as it is
    assert [item[0] for item in named.items] == ["b.png"]


def test_losses_are_written_for_tensorboard_too(tmp_path, folder):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(official(), Photos([folder]), config("denoise", steps=3), tmp_path, progress=False)
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([row["loss"] for row in log(tmp_path)])


def test_the_factor_of_training_becomes_the_models_factor(tmp_path, folder):
    settings = with_settings(config("denoise", steps=1), ["factor=1"])
    assert settings.factor_min == settings.factor_max == 1.0
    model = load_cascade(train(official(), Photos([folder]), settings, tmp_path, progress=False))
    assert model.config.factor == 1.0


def test_fewstep_removes_guidance_and_does_not_start_from_epsilon(tmp_path, folder, vgg):
    settings = replace(config("fewstep", steps=1), window=32)
    with pytest.raises(InputError, match="train with --set prediction=v first"):
        train(official(), Photos([folder]), settings, tmp_path / "epsilon", vgg, progress=False)
    guided = official()
    guided.config = replace(guided.config, prediction="v", guidance=1.1)
    assert (
        load_cascade(train(guided, Photos([folder]), settings, tmp_path / "v", vgg, progress=False)).config.guidance
        == 1.0
    )


@pytest.mark.parametrize("fails_at, step", [(4, 2), (8, 4)])  # a checkpoint has three files
def test_a_full_disk_loses_nothing_already_saved(tmp_path, folder, monkeypatch, fails_at, step):
    """The disk is full at the second or third checkpoint. The run resumes from the one before it."""
    settings = replace(config("denoise", steps=6), save_every=2)
    train(official(), Photos([folder]), settings, tmp_path / "whole", progress=False)
    save, calls = run_folder.save_tensors, []

    def full(*args):
        calls.append(1)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*args)

    monkeypatch.setattr(run_folder, "save_tensors", full)
    with pytest.raises((OSError, InputError), match="No space left on device"):
        train(official(), Photos([folder]), settings, tmp_path / "cut", progress=False)
    monkeypatch.undo()
    assert json.loads((tmp_path / "cut" / "last" / "state.json").read_text())["step"] == step
    train(official(), Photos([folder]), settings, tmp_path / "cut", resume=True, progress=False)
    assert [row["loss"] for row in log(tmp_path / "cut")] == [row["loss"] for row in log(tmp_path / "whole")]
