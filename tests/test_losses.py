"""What networks learn from: the losses, the critic, the channel in training."""

import math

import pytest
import torch
from torch.nn import functional as F
from training_runs import config, log, make_step, seeded, tiny

from semcast import randomness
from semcast.channels.noise import awgn
from semcast.errors import InputError
from semcast.training import losses
from semcast.training.critic import Critic
from semcast.training.enhancement import heard
from semcast.training.train import train
from semcast.transmitter import unit_power


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


def test_the_grid_loss_is_the_deviation_of_what_repeats_every_16_pixels(photos):
    truth = torch.cat([photos.crops(96, 8, randomness.seeded(i)) for i in range(2)])
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    grey, waves = torch.full((1, 3, 96, 96), 0.5), lambda period: 0.05 * torch.cos(2 * math.pi * x / period)
    for period in (4, 8, 16):  # what repeats every 4 or 8 pixels repeats every 16
        assert losses.grid_loss(grey + waves(period)).item() == pytest.approx(0.05 / 2**0.5, rel=0.15)
    assert losses.grid_loss(grey + waves(6)).item() < 0.002
    assert losses.grid_loss(truth + waves(16)) > 3 * losses.grid_loss(truth)  # pictures have none in common
