"""What each training phase minimises. Every loss sends the batch through the link's own transmitter, channel and equaliser.

A loss is a function (cascade, batch, step, config, lpips) -> {name: scalar or one value a picture}; names without a weight
in `train.weights` are for the log. `batch` is images [b, 3, S, S], or (Z, latent) from the cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from .cascade.diffusion import add_noise, draw_noise, log_snr, sample, scales
from .cascade.encoder import LATENT_CHANNELS, STRIDE
from .cascade.model import Cascade
from .channel import Received, awgn
from .critic import Critic
from .data import step_generator
from .lpips import LPIPS
from .models import has_bf16
from .receiver import condition
from .transmitter import encode, encoder_sides, modulate

MARGIN = 4  # latent pixels decoded around a window and thrown away with a random offset, against grid artefacts
GRID = 8  # pixels: one output of Stage B is 2x2 numbers of the latent, 8x8 pixels
FAINT = 0.005  # amplitude below which no one sees a pattern
BUCKETS, BUCKET_DECAY = 300, 0.99  # of the adaptive weight


@dataclass
class Step:
    """The randomness of one step, drawn for the whole batch and cut to the rows at hand.

    So a picture's draws depend neither on how many processes share the batch nor on how it is cut up to save memory.
    """

    generator: Generator
    batch: int  # pictures of the whole batch
    rows: slice
    device: torch.device
    buckets: Tensor  # [BUCKETS] of the adaptive weight; ones where it is not used
    basis: tuple[Tensor, Tensor] | None = None  # of the phase "code": `linear_code_basis`
    critic: Critic | None = None  # of adversarial training

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers, [b, *shape]."""
        return torch.rand(self.batch, *shape, generator=self.generator)[self.rows].to(self.device)

    def generators(self) -> Sequence[Generator]:
        """One a picture."""
        seeds = torch.randint(1 << 30, (self.batch,), generator=self.generator)[self.rows].tolist()
        return [step_generator(seed, 0, 0) for seed in seeds]

    def integer(self, high: int) -> int:
        """From 0 to high - 1, the same for all pictures."""
        return int(torch.randint(high, (), generator=self.generator))


def autoencoder_loss(cascade: Cascade, images: Tensor, step: Step, config, lpips: LPIPS) -> dict[str, Tensor]:
    latent = cascade.stage_a.encode(images)
    noise = draw_noise(latent, step.generators()) * latent.detach().std()
    return pixel_losses(cascade, latent + config.latent_noise * noise, images, step, config, lpips)


def code_loss(cascade: Cascade, images: Tensor, step: Step, config, lpips=None) -> dict[str, Tensor]:
    """Teach the encoder the linear code first: left to the other losses, its 16 channels carried no more than six."""
    z = encode(images, cascade.encoder, config.factor_min)
    return {"code": F.mse_loss(z, linear_code(images, config.factor_min, step.basis))}


def linear_code(images: Tensor, factor: float, basis: tuple[Tensor, Tensor]) -> Tensor:
    """The best linear code of every cell of Z on its own: [B, 3, H, W] -> [B, 16, hz, wz], unit variance in every channel."""
    mean, projection = basis
    patches, (h, w) = cells(images, factor)
    return ((patches - mean) @ projection).view(len(images), h, w, -1).movedim(-1, 1)


def cells(images: Tensor, factor: float) -> tuple[Tensor, tuple[int, int]]:
    """What each cell of Z covers, averaged to 8x8 pixels: [B hz wz, 192], and (hz, wz)."""
    h, w = (side // STRIDE for side in encoder_sides(images.shape[-2:], factor))
    small = F.interpolate(images, size=(8 * h, 8 * w), mode="area")
    return F.unfold(small, 8, stride=8).movedim(1, 2).reshape(len(images) * h * w, -1), (h, w)


def linear_code_basis(images: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """(mean [192], projection [192, 16]) of `linear_code`, from the statistics of `images`.

    The 16 strongest principal components, of standard deviation sigma each, are sent with amplitudes sigma^(1/4): between
    sigma^(1/2), which has the least mean square error in noise (Lee and Petersen 1976), and equal ones, which favour detail.
    A Hadamard matrix mixes them, so that every channel has the same variance, as the encoder's last layer demands.
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


def joint_loss(cascade: Cascade, images: Tensor, step: Step, config, lpips: LPIPS) -> dict[str, Tensor]:
    """One denoiser evaluation, mostly from pure noise, whose x0 is compared with the picture."""
    code, noise = noisy_condition(cascade, images, step, config)
    with torch.no_grad():
        target = cascade.stage_a.encode(images).float()
    t = torch.where(step.rand() < config.from_noise, 1.0, step.rand())
    x = add_noise(target, t, draw_noise(target, step.generators()))
    x0, _ = cascade.denoise(x, t, cascade.prepare(code, noise, x.shape[-2:], guided=False))
    return latent_losses(x0, target, images, step, config, lpips) | pixel_losses(cascade, x0, images, step, config, lpips)


def fewstep_loss(cascade: Cascade, images: Tensor, step: Step, config, lpips: LPIPS) -> dict[str, Tensor]:
    """Walk part of the way with the network's own predictions, without gradient, then train the next one."""
    with torch.no_grad():
        code, noise = noisy_condition(cascade, images, step, config)
        target = cascade.stage_a.encode(images).float()
        steps = (10, 10, 4, 2)[step.integer(4)]
        generators = step.generators()
        prepared = cascade.prepare(code, noise, target.shape[-2:], guided=False)
        denoiser = lambda x, t: cascade.denoise(x, t, prepared)  # noqa: E731
        x, t = sample(denoiser, draw_noise(target, generators), steps, generators, stop=step.integer(steps))
    torch.clear_autocast_cache()  # older torch would reuse the weights cast without gradient (pytorch #112583)
    x0, _ = cascade.denoise(x, t, cascade.prepare(code, noise, x.shape[-2:], guided=False))
    return latent_losses(x0, target, images, step, config, lpips) | pixel_losses(cascade, x0, images, step, config, lpips)


def denoise_loss(cascade: Cascade, batch: Tensor | tuple[Tensor, Tensor], step: Step, config, lpips=None) -> dict[str, Tensor]:
    """The paper's: the squared error of what the network predicts (officially epsilon), on a condition that went through the channel.

    Source: arXiv 2507.17416, section 3; t, weight and noise as in Stability-AI/StableCascade, train/train_b.py; gdf compares in
    the network's own terms too. (The error of epsilon is that of x0 by up to 10^4: one that predicts x0 would learn t = 0 only.)
    """
    code, noise = noisy_condition(cascade, batch, step, config)
    with torch.no_grad():
        target = batch[1] if isinstance(batch, tuple) else cascade.stage_a.encode(batch).float()
    t = (1 - step.rand() + 0.001).clamp(max=1)
    eps = pyramid_noise(target, step.generators()) if config.pyramid_noise else draw_noise(target, step.generators())
    x0, predicted = cascade.denoise(add_noise(target, t, eps), t, cascade.prepare(code, noise, target.shape[-2:], guided=False))
    a, b = scales(t)
    difference = {"epsilon": predicted - eps, "x0": x0 - target, "v": a * (predicted - eps) - b * (x0 - target)}
    error = difference[cascade.config.prediction].square().mean(dim=(1, 2, 3))  # [b]
    bucket = buckets_of(t)
    return {"denoise": error / step.buckets[bucket].clamp(1e-7, 1e7), "error": error.detach(), "bucket": bucket}


def bf16(device: torch.device, enabled: bool) -> torch.autocast:
    """Autocast where the device has it: emulated it would be slower than float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bf16(device.type))


def buckets_of(t: Tensor) -> Tensor:
    """Which of BUCKETS equal parts of logSNR -10 .. 10 each t [b] lies in."""
    return torch.searchsorted(torch.linspace(-10, 10, BUCKETS - 1, device=t.device), log_snr(t).contiguous())


def update_buckets(buckets: Tensor, bucket: Tensor, error: Tensor) -> None:
    """The adaptive weight of a time is 1 over the running mean of the loss there. Source: gdf/loss_weights.py."""
    for i, value in zip(bucket.tolist(), error.tolist()):
        buckets[i] = BUCKET_DECAY * buckets[i] + (1 - BUCKET_DECAY) * value


def pyramid_noise(like: Tensor, generators: Sequence[Generator]) -> Tensor:
    """White noise plus coarser noise on sides of 1 to 16, weight 0.75^i at 1 / 2^i of the side, of unit variance in all.

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


def noisy_condition(cascade: Cascade, batch: Tensor | tuple[Tensor, Tensor], step: Step, config) -> tuple[Tensor, Tensor]:
    """The link's own transmitter, channel and equaliser: images or cached Z -> code, noise, each [b, 16, hz, wz]."""
    learning = next(cascade.encoder.parameters()).requires_grad
    factor = config.factor_min + (config.factor_max - config.factor_min) * torch.rand((), generator=step.generator).item()
    if isinstance(batch, tuple):
        z = batch[0]
    else:  # an encoder that does not learn runs in float32, as it does in the link
        with bf16(step.device, learning and config.bf16), torch.set_grad_enabled(learning):
            z = encode(batch, cascade.encoder, factor)
    x, gain = modulate(z)
    snr_db = config.snr_min + (config.snr_max - config.snr_min) * step.rand()
    if not config.channel_noise:
        snr_db = torch.full_like(snr_db, 100.0)
    received = uneven(awgn(x, snr_db, step.generators()), x, step, config)
    code, noise = condition(received, gain, z.shape[1:], cascade.config.noise_aware)
    keep = (step.rand() >= config.condition_drop).to(code)  # after the noise: sampling without condition sees zeros too
    return code * keep[:, None, None, None], noise


def uneven(received: Received, x: Tensor, step: Step, config) -> Received:
    """Let some pictures' symbols fade and others' get lost, so that a receiver learns to read the noise map.

    Interleaved OFDM over a multipath channel looks like independent Rayleigh fading to the code; so do lost packets like
    lost symbols.
    """
    if not config.fading + config.erasures:
        return received
    y, h, noise_var = received
    kind, rate = step.rand(1), 0.5 * step.rand(1)
    lost = (kind >= 1 - config.erasures) & (step.rand(x.shape[1]) < rate)
    re, im = draw_noise(x.new_empty(len(x), 2, x.shape[1], dtype=torch.float32), step.generators()).unbind(1)
    h = torch.where(kind < config.fading, torch.complex(re, im) / math.sqrt(2), h)
    return Received(torch.where(lost, 0, y - x + h * x), h, torch.where(lost, torch.inf, noise_var))


def latent_losses(x0: Tensor, target: Tensor, images: Tensor, step: Step, config, lpips: LPIPS) -> dict[str, Tensor]:
    """L1 between latents, at full size and averaged over blocks of 2, 4, 8 and 16: colours and layout weigh most.

    At full size alone an encoder learns nothing for hundreds of steps: most of a latent is detail no code can carry.
    """
    difference = x0 - target
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= min(difference.shape[-2:])]
    losses = {"latent": sum(F.avg_pool2d(difference, size).abs().mean() for size in sizes)}
    if config.thumbnail_weight:
        losses["thumbnail"] = thumbnail_loss(x0, target, images, step, config, lpips)
    return losses


def thumbnail_loss(x0: Tensor, target: Tensor, images: Tensor, step: Step, config, lpips: LPIPS) -> Tensor:
    """pixel_weight L1 + LPIPS-VGG at a quarter of the side, where a latent is almost a picture: no decoder runs.

    A random margin of up to 8 of its pixels is cut, or VGG's pooling grid shows as diagonal stripes.
    The linear map from latent to colour is the least-squares fit of these true latents to their pictures.
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


def pixel_losses(cascade: Cascade, latent: Tensor, images: Tensor, step: Step, config, lpips: LPIPS) -> dict[str, Tensor]:
    """Decode a random window of the latent and compare it with the picture. Its offset is any pixel, not any block."""
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
    size = round(config.window * (0.65 + step.integer(8) / 10))  # at one size a weave can please VGG; not at all sizes
    decoded, truth = (F.interpolate(t, size=(size, size), mode="bilinear", antialias=True) for t in (decoded, truth))
    with torch.no_grad():
        true_maps = lpips.maps(truth)
    maps = lpips.maps(decoded)
    losses["lpips"] = lpips.distance(maps, true_maps).mean()
    return losses | (step.critic.losses(maps, true_maps) if step.critic else {})


def spectrum_loss(decoded: Tensor, truth: Tensor) -> Tensor:
    """Power at any frequency beyond what the true pictures of the batch have there: a weave is a few sharp peaks.

    Sum over the plane of frequencies of max(0, ln(P / P_true) - 1/2)^2, by the square root of their number.
    """
    hann = torch.hann_window(decoded.shape[-1], periodic=False, device=decoded.device)
    hann = hann[:, None] * hann

    def power(x: Tensor) -> Tensor:
        x = (x - x.mean(dim=(-2, -1), keepdim=True)) * hann
        return torch.fft.rfft2(x).abs().square().mean(dim=(0, 1)) / hann.square().sum() + FAINT**2

    excess = (power(decoded) / power(truth)).log() - 0.5
    return excess.relu().square().sum() / excess.numel() ** 0.5


def grid_loss(decoded: Tensor) -> Tensor:
    """Deviation of what repeats every GRID pixels all over a window: no picture does that, Stage B's patches do."""
    fine = decoded - F.avg_pool2d(decoded, GRID + 1, 1, GRID // 2, count_include_pad=False)
    b, c, *sides = fine.shape
    h, w = (side // GRID for side in sides)
    repeated = fine[..., : h * GRID, : w * GRID].reshape(b, c, h, GRID, w, GRID).mean(dim=(2, 4))  # [b, c, GRID, GRID]
    return repeated.square().mean().clamp_min(1e-10).sqrt()


PHASES = {  # name: loss, networks that learn
    "autoencoder": (autoencoder_loss, ("stage_a",)),
    "code": (code_loss, ("encoder",)),
    "joint": (joint_loss, ("encoder", "stage_b")),
    "decode": (joint_loss, ("stage_b",)),
    "fewstep": (fewstep_loss, ("stage_b",)),
    "denoise": (denoise_loss, ("stage_b",)),
}
