"""The losses of the training phases. They send the batch over the transmitter, channels and equaliser of the link.

A loss is a function (cascade, batch, step, config, lpips) -> {name: scalar, or one value per picture}. Names without a
weight in `train.weights` are only logged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from ..cascade.config import LATENT_CHANNELS, STRIDE
from ..cascade.denoiser import denoise, prepare
from ..cascade.device import has_bf16
from ..cascade.diffusion import add_noise, log_snr, sample, scales
from ..cascade.model import Cascade
from ..channels.base import Received
from ..channels.erasure import erasure
from ..channels.fading import rayleigh_fast
from ..channels.noise import awgn
from ..header import encoder_sides
from ..metrics.lpips import LPIPS
from ..modulation.analog import demodulate, modulate
from ..randomness import draw_noise
from ..transmitter import encode
from .config import MARGIN, TrainConfig
from .critic import Critic
from .data import step_generator

Batch = Tensor | tuple[Tensor, Tensor]  # images [b, 3, S, S], or (Z, latent) from the cache

GRID = 16  # pixels; the lower level of `small`'s Stage B has cells of 16x16 pixels, the upper one of 8x8
FAINT = 0.005  # amplitude below which patterns are invisible
NO_NOISE_DB = 100.0
BUCKETS, BUCKET_DECAY = 300, 0.99  # for the adaptive weight


@dataclass
class Step:
    """The random draws of one step. They are made for the whole batch and then cut to the given rows.

    A picture's draws therefore depend neither on the number of processes nor on how the batch is split to save memory.
    """

    generator: Generator
    batch: int  # number of pictures in the whole batch
    rows: slice
    device: torch.device
    buckets: Tensor  # [BUCKETS] for the adaptive weight; ones if it is not used
    basis: tuple[Tensor, Tensor] | None = None  # from `linear_basis`, for phases that need it
    critic: Critic | None = None  # for adversarial training

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), [b, *shape]."""
        return torch.from_numpy(self.generator.random((self.batch, *shape), np.float32)[self.rows]).to(self.device)

    def generators(self) -> Sequence[Generator]:
        """One generator per picture."""
        seeds = self.generator.integers(1 << 30, size=self.batch)[self.rows].tolist()
        return [step_generator(seed, 0, 0) for seed in seeds]

    def integer(self, high: int) -> int:
        """An integer from 0 to high - 1, the same for all pictures."""
        return int(self.generator.integers(high))


def autoencoder_loss(
    cascade: Cascade, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS
) -> dict[str, Tensor]:
    """Stage A alone: pixel losses of the decoded latent, to which a little noise is added."""
    latent = cascade.stage_a.encode(images)
    noise = draw_noise(latent, step.generators()) * latent.detach().std()
    return pixel_losses(cascade, latent + config.latent_noise * noise, images, step, config, lpips)


def linear_loss(
    cascade: Cascade, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS | None = None
) -> dict[str, Tensor]:
    """Teach the encoder the best linear Z. Trained on the other losses alone, its 16 channels carried six at most."""
    assert step.basis is not None
    z = encode(images, cascade.encoder, config.factor_min)
    return {"linear": F.mse_loss(z, linear_z(images, config.factor_min, step.basis))}


def linear_z(images: Tensor, factor: float, basis: tuple[Tensor, Tensor]) -> Tensor:
    """The best linear Z: [B, 3, H, W] -> [B, 16, hz, wz], each cell by itself, unit variance in every channel."""
    mean, projection = basis
    patches, (h, w) = cells(images, factor)
    return ((patches - mean) @ projection).view(len(images), h, w, -1).movedim(-1, 1)


def cells(images: Tensor, factor: float) -> tuple[Tensor, tuple[int, int]]:
    """The patches that the cells of Z cover, averaged to 8x8 pixels: [B hz wz, 192], and (hz, wz)."""
    height, width = images.shape[-2:]
    h, w = (side // STRIDE for side in encoder_sides((height, width), factor))
    small = F.interpolate(images, size=(8 * h, 8 * w), mode="area")
    return F.unfold(small, 8, stride=8).movedim(1, 2).reshape(len(images) * h * w, -1), (h, w)


def linear_basis(images: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """(mean [192], projection [192, 16]) of `linear_z`, from the statistics of `images`.

    The 16 strongest principal components, with standard deviations sigma, are sent with amplitudes sigma^(1/4). This
    lies between sigma^(1/2), which has the least mean square error in noise (Lee and Petersen 1976), and equal
    amplitudes, which favour detail. A Hadamard matrix mixes them, because the encoder's last layer gives every channel
    the same variance.
    """
    patches, _ = cells(images, factor)
    mean = patches.mean(dim=0)
    power, directions = torch.linalg.eigh(torch.cov(patches.T))
    sigma, directions = power[-LATENT_CHANNELS:].clamp_min(1e-9).sqrt(), directions[:, -LATENT_CHANNELS:]
    amplitude = sigma**0.25
    hadamard = torch.ones(1, 1)
    while len(hadamard) < LATENT_CHANNELS:
        hadamard = torch.kron(hadamard, torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    projection = directions / sigma * amplitude @ hadamard.to(directions)
    return mean, projection / amplitude.square().sum().sqrt()


def joint_loss(cascade: Cascade, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    """Evaluate the denoiser once, mostly from pure noise, and compare its x0 with the picture."""
    z, noise = noisy_z(cascade, images, step, config)
    with torch.no_grad():
        target = cascade.stage_a.encode(images).float()
    t = torch.where(step.rand() < config.from_noise, 1.0, step.rand())
    x = add_noise(target, t, draw_noise(target, step.generators()))
    x0, _ = denoise(cascade, x, t, prepare(cascade, z, noise, x.shape[-2:], guided=False))
    losses = latent_losses(x0, target, images, step, config, lpips)
    return losses | pixel_losses(cascade, x0, images, step, config, lpips)


def fewstep_loss(cascade: Cascade, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    """Sample up to a random step without gradient, then train the network's next prediction."""
    with torch.no_grad():
        z, noise = noisy_z(cascade, images, step, config)
        target = cascade.stage_a.encode(images).float()
        steps = (10, 10, 4, 2)[step.integer(4)]
        generators = step.generators()
        prepared = prepare(cascade, z, noise, target.shape[-2:], guided=False)
        denoiser = lambda x, t: denoise(cascade, x, t, prepared)
        x, t = sample(denoiser, draw_noise(target, generators), steps, generators, stop=step.integer(steps))
    torch.clear_autocast_cache()  # older versions of torch reuse the weights cast without gradient (pytorch #112583)
    x0, _ = denoise(cascade, x, t, prepare(cascade, z, noise, x.shape[-2:], guided=False))
    losses = latent_losses(x0, target, images, step, config, lpips)
    return losses | pixel_losses(cascade, x0, images, step, config, lpips)


def denoise_loss(
    cascade: Cascade, batch: Batch, step: Step, config: TrainConfig, lpips: LPIPS | None = None
) -> dict[str, Tensor]:
    """The loss of the paper: squared error of the network's own prediction, given a condition received over a channel.

    The error is not converted to epsilon, the official prediction: it is up to 10^4 times that of x0, so a network that
    predicts x0 would only learn t = 0.

    Source: arXiv 2507.17416, section 3; t, weight and noise as in Stability-AI/StableCascade (train/train_b.py, gdf/).
    """
    z, noise = noisy_z(cascade, batch, step, config)
    with torch.no_grad():
        target = batch[1] if isinstance(batch, tuple) else cascade.stage_a.encode(batch).float()
    t = (1 - step.rand() + 0.001).clamp(max=1)
    eps = pyramid_noise(target, step.generators()) if config.pyramid_noise else draw_noise(target, step.generators())
    condition = prepare(cascade, z, noise, target.shape[-2:], guided=False)
    x0, predicted = denoise(cascade, add_noise(target, t, eps), t, condition)
    a, b = scales(t)
    difference = {"epsilon": predicted - eps, "x0": x0 - target, "v": a * (predicted - eps) - b * (x0 - target)}
    error = difference[cascade.config.prediction].square().mean(dim=(1, 2, 3))  # [b]
    bucket = buckets_of(t)
    return {"denoise": error / step.buckets[bucket].clamp(1e-7, 1e7), "error": error.detach(), "bucket": bucket}


def bf16(device: torch.device, enabled: bool) -> torch.autocast:
    """Autocast where the device supports it; emulated bf16 would be slower than float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bf16(device.type))


def buckets_of(t: Tensor) -> Tensor:
    """Which of BUCKETS equal intervals of logSNR in -10 .. 10 each t [b] belongs to."""
    return torch.searchsorted(torch.linspace(-10, 10, BUCKETS - 1, device=t.device), log_snr(t).contiguous())


def update_buckets(buckets: Tensor, bucket: Tensor, error: Tensor) -> None:
    """Update the running mean of the loss in each bucket; the adaptive weight is 1 over it.

    Source: Stability-AI/StableCascade, gdf/loss_weights.py.
    """
    for i, value in zip(bucket.tolist(), error.tolist()):
        buckets[i] = BUCKET_DECAY * buckets[i] + (1 - BUCKET_DECAY) * value


def pyramid_noise(like: Tensor, generators: Sequence[Generator]) -> Tensor:
    """Unit-variance sum of white noise and coarser noise with sides of 1 to 16, weighted 0.75^i at 1 / 2^i of the side.

    Source: Stability-AI/StableCascade, train/train_b.py (`_pyramid_noise`).
    """
    total, power = draw_noise(like, generators), 1.0
    height, width = like.shape[-2:]
    for i in range(1, 10):
        h, w = height // 2**i, width // 2**i
        if min(h, w) >= 1 and max(h, w) <= 16:
            coarse = draw_noise(like.new_empty(*like.shape[:2], h, w), generators)
            total = total + 0.75**i * F.interpolate(coarse, size=(height, width), mode="nearest")
            power += 0.75 ** (2 * i)
    return total / math.sqrt(power)


def noisy_z(cascade: Cascade, batch: Batch, step: Step, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Send images or a cached Z over a channel -> the receiver's estimate of Z and its noise, each [b, 16, hz, wz]."""
    learning = next(cascade.encoder.parameters()).requires_grad
    share = step.generator.random()
    factor = config.factor_min + (config.factor_max - config.factor_min) * share
    if isinstance(batch, tuple):
        z = batch[0]
    else:  # an encoder that is not trained runs in float32, as in the link
        with bf16(step.device, learning and config.bf16), torch.set_grad_enabled(learning):
            z = encode(batch, cascade.encoder, factor)
    x, gain = modulate(z)
    snr_db = config.snr_min + (config.snr_max - config.snr_min) * step.rand()
    if not config.channel_noise:
        snr_db = torch.full_like(snr_db, NO_NOISE_DB)
    received = propagate(x, snr_db, step, config)
    z, noise = demodulate(received, gain, (z.shape[1], z.shape[2], z.shape[3]), cascade.config.noise_aware)
    # dropped after the noise is added, because sampling without condition uses zeros
    keep = (step.rand() >= config.condition_drop).to(z)
    return z * keep[:, None, None, None], noise


def propagate(x: Tensor, snr_db: Tensor, step: Step, config: TrainConfig) -> Received:
    """Send each picture over its own channel: AWGN, or fading or erasures for a share of them.

    This teaches a receiver to use the noise map. For Z, interleaved OFDM over a multipath channel is like independent
    Rayleigh fading, and interleaved lost packets are like lost symbols.
    """
    kinds, rates, generators = step.rand(), 0.5 * step.rand(), step.generators()
    rows = []
    for i, (kind, rate) in enumerate(zip(kinds.tolist(), rates.tolist())):
        one = x[i : i + 1], snr_db[i : i + 1], generators[i : i + 1]
        if kind < config.fading:
            rows.append(rayleigh_fast(*one))
        elif kind >= 1 - config.erasures:
            rows.append(erasure(*one, rate))
        else:
            rows.append(awgn(*one))
    return Received(*(torch.cat([part.expand(-1, x.shape[1]) for part in parts]) for parts in zip(*rows)))


def latent_losses(
    x0: Tensor, target: Tensor, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS
) -> dict[str, Tensor]:
    """L1 between latents, at full size and averaged over blocks of 2, 4, 8 and 16, which stresses colours and layout.

    At full size alone an encoder learnt nothing for hundreds of steps, because most of a latent is detail that Z cannot
    carry.
    """
    difference = x0 - target
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= min(difference.shape[-2:])]
    losses = {"latent": sum((F.avg_pool2d(difference, size).abs().mean() for size in sizes), difference.new_zeros(()))}
    if config.thumbnail_weight:
        losses["thumbnail"] = thumbnail_loss(x0, target, images, step, config, lpips)
    return losses


def thumbnail_loss(x0: Tensor, target: Tensor, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS) -> Tensor:
    """pixel_weight L1 + LPIPS-VGG at a quarter of the side, where a linear map of the latent replaces the decoder.

    The map from latent to colour is the least-squares fit of these true latents to their pictures. A random margin of
    up to 8 pixels is cut off, because otherwise VGG's pooling grid shows as diagonal stripes.
    """
    with torch.no_grad(), torch.autocast(target.device.type, enabled=False):
        truth = F.avg_pool2d(images, 4)
        latents = F.pad(target.movedim(1, -1).reshape(-1, target.shape[1]), (0, 1), value=1.0)  # [N, 5]
        fit = torch.linalg.solve(latents.T @ latents, latents.T @ truth.movedim(1, -1).reshape(-1, 3))  # [5, 3]
    seen = torch.einsum("bchw,cd->bdhw", x0.float(), fit[:-1]) + fit[-1][:, None, None]
    top, left = step.integer(9), step.integer(9)
    seen, truth = (t[..., top : t.shape[-2] - 8 + top, left : t.shape[-1] - 8 + left] for t in (seen, truth))
    with torch.no_grad():
        maps = lpips.maps(truth)
    return config.pixel_weight * F.l1_loss(seen, truth) + lpips.distance(lpips.maps(seen), maps).mean()


def pixel_losses(
    cascade: Cascade, latent: Tensor, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS
) -> dict[str, Tensor]:
    """Decode a random window of the latent and compare it with the picture. The window may start at any pixel."""
    if not config.window:
        return {}
    side = config.window // 4 + MARGIN  # latent pixels
    top, left = (step.integer(n - side + 1) for n in latent.shape[-2:])
    decoded = cascade.stage_a.decode(latent[..., top : top + side, left : left + side]).float()
    v, w = step.integer(4 * MARGIN + 1), step.integer(4 * MARGIN + 1)
    decoded = decoded[..., v : v + config.window, w : w + config.window]
    truth = images[..., 4 * top + v : 4 * top + v + config.window, 4 * left + w : 4 * left + w + config.window]
    losses = {"pixel": F.l1_loss(decoded, truth)}
    if config.spectrum_weight:
        losses["spectrum"] = spectrum_loss(decoded, truth)
    if config.grid_weight:
        losses["grid"] = grid_loss(decoded)
    # at a random size, because a weave can please VGG at one size, but not at every size
    size = round(config.window * (0.65 + step.integer(8) / 10))
    decoded, truth = (F.interpolate(t, size=(size, size), mode="bilinear", antialias=True) for t in (decoded, truth))
    with torch.no_grad():
        true_maps = lpips.maps(truth)
    maps = lpips.maps(decoded)
    losses["lpips"] = lpips.distance(maps, true_maps).mean()
    return losses | (step.critic.losses(maps, true_maps) if step.critic else {})


def spectrum_loss(decoded: Tensor, truth: Tensor) -> Tensor:
    """Penalise power beyond that of the batch's true pictures at each frequency; a weave has a few sharp peaks.

    The loss is the sum of max(0, ln(P / P_true) - 1/2)^2 over frequencies, divided by the square root of their number.
    """
    hann = torch.hann_window(decoded.shape[-1], periodic=False, device=decoded.device)
    hann = hann[:, None] * hann

    def power(x: Tensor) -> Tensor:
        x = (x - x.mean(dim=(-2, -1), keepdim=True)) * hann
        return torch.fft.rfft2(x).abs().square().mean(dim=(0, 1)) / hann.square().sum() + FAINT**2

    excess = (power(decoded) / power(truth)).log() - 0.5
    return excess.relu().square().sum() / excess.numel() ** 0.5


def grid_loss(decoded: Tensor, period: int = GRID) -> Tensor:
    """RMS of the pattern, common to the batch, that repeats every `period` pixels, as Stage B's cells do."""
    fine = decoded - F.avg_pool2d(decoded, period + 1, 1, period // 2, count_include_pad=False)
    b, c, *sides = fine.shape
    h, w = (side // period for side in sides)
    cells = fine[..., : h * period, : w * period].reshape(b, c, h, period, w, period)
    repeated = cells.mean(dim=(0, 2, 4))  # [c, period, period]
    return repeated.square().mean().clamp_min(1e-10).sqrt()
