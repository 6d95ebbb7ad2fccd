"""Training: three phases over one loop.

    autoencoder   Stage A alone: L1 + LPIPS-VGG
    joint         encoder and Stage B together, channel noise in between, Stage A frozen
    fewstep       Stage B on its own samples: the sampler walks to a random step, that step is trained

What a step sees depends on (seed, step) alone, so an interrupted run that resumes makes the same losses as one that
was never interrupted. A run folder holds config.json, log.jsonl, samples/, last/ (to resume) and model/ (to use).
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .cascade.checkpoint import fingerprint, load_tensors, save_model, save_tensors, write_text
from .cascade.diffusion import add_noise, draw_noise, sample
from .cascade.model import Cascade
from .channel import Received, awgn
from .data import Photos, Prefetcher, step_generator
from .errors import InputError
from .images import to_pixels, write_png
from .lpips import LPIPS
from .receiver import condition, receive
from .transmitter import Header, encode, modulate

MARGIN = 4  # latent pixels decoded around a window and thrown away with a random offset, against grid artefacts


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Flat scalars; every one can be set by `--set name=value`."""

    phase: str
    steps: int
    lr: float
    batch: int = 8
    crop: int = 256  # pixels, a multiple of 64
    seed: int = 0
    warmup: int = 100  # steps of linear rise; then a cosine down to lr_end * lr
    lr_end: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999
    bf16: bool = True
    compile: bool = False
    snr_min: float = -2.0  # dB, drawn uniformly for each picture
    snr_max: float = 22.0
    channel_noise: bool = True  # False: the ablation, a receiver that never saw noise
    fading: float = 0.0  # share of pictures whose symbols fade, each for itself (Rayleigh)
    erasures: float = 0.0  # share of pictures that lose up to half of their symbols
    factor_min: float = 0.75  # encoder input side / side, drawn once a step
    factor_max: float = 0.75
    batch_norm_until: float = 0.2  # share of the steps with batch statistics in the encoder; they take brightness out of Z
    condition_drop: float = 0.0  # share of pictures whose condition is zeroed, after the noise
    from_noise: float = 0.7  # share of pictures at t = 1; the others at uniform t
    latent_weight: float = 1.0  # L1 between latents, summed over five scales
    pixel_weight: float = 1.0  # L1 between decoded windows
    lpips_weight: float = 1.0  # LPIPS-VGG between decoded windows
    window: int = 128  # pixels of the decoded window; 0: no decoding
    thumbnail_weight: float = 0.0  # pixel_weight L1 + LPIPS-VGG of the whole picture at a quarter of its side
    latent_noise: float = 0.1  # autoencoder: noise on the latent, by its deviation
    save_every: int = 200
    sample_every: int = 500

    def __post_init__(self):
        rules = [
            ("phase", self.phase in PHASES, " or ".join(PHASES)),
            ("steps", self.steps >= 1, "1 or more"),
            ("batch", self.batch >= 1, "1 or more"),
            ("crop", self.crop >= 64 and self.crop % 64 == 0, "a multiple of 64"),
            ("window", 0 <= self.window <= self.crop - 4 * MARGIN and self.window % 4 == 0, f"a multiple of 4, {4 * MARGIN} below crop"),
            ("thumbnail_weight", not self.thumbnail_weight or self.crop >= 128, "0 for crops below 128 pixels"),
            ("lr", 0 < self.lr < 1, "between 0 and 1"),
            ("snr_min", -30 <= self.snr_min <= self.snr_max <= 60, "-30 <= snr_min <= snr_max <= 60"),
            ("fading", self.fading >= 0 and self.erasures >= 0 and self.fading + self.erasures <= 1, "shares, with erasures at most 1"),
            ("factor_min", 0.5 <= self.factor_min <= self.factor_max <= 1, "0.5 <= factor_min <= factor_max <= 1"),
            ("ema", 0 <= self.ema < 1, "0 to below 1"),
            ("save_every", self.save_every >= 1, "1 or more"),
            ("sample_every", self.sample_every >= 1, "1 or more"),
        ]
        if bad := [f"{name} = {getattr(self, name)!r}, allowed: {allowed}" for name, fine, allowed in rules if not fine]:
            raise InputError("bad training settings: " + "; ".join(bad))


def autoencoder_loss(cascade: Cascade, images: Tensor, g: torch.Generator, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    latent = cascade.stage_a.encode(images)
    noise = torch.randn(latent.shape, generator=g).to(latent) * latent.detach().std()
    return {"latent": latent.new_zeros(())} | pixel_losses(cascade, latent + config.latent_noise * noise, images, g, config, lpips)


def joint_loss(cascade: Cascade, images: Tensor, g: torch.Generator, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    code, noise = noisy_condition(cascade, images, g, config)
    with torch.no_grad():
        target = cascade.stage_a.encode(images).float()
    t = torch.rand(len(images), generator=g)
    t = torch.where(torch.rand(len(images), generator=g) < config.from_noise, torch.ones(()), t).to(images.device)
    x = add_noise(target, t, torch.randn(target.shape, generator=g).to(target))
    x0, _ = cascade.denoise(x, t, code, noise)
    return latent_losses(x0, target, images, g, config, lpips) | pixel_losses(cascade, x0, images, g, config, lpips)


def fewstep_loss(cascade: Cascade, images: Tensor, g: torch.Generator, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    """Walk part of the way with the network's own predictions, without gradient, then train the next one."""
    steps = (10, 10, 4, 2)[torch.randint(4, (), generator=g)]
    done = int(torch.randint(steps, (), generator=g))
    with torch.no_grad():
        code, noise = noisy_condition(cascade, images, g, config)
        target = cascade.stage_a.encode(images).float()
        generators = [step_generator(int(s), 0, 0) for s in torch.randint(1 << 30, (len(images),), generator=g)]
        x, t = sample(lambda x, t: cascade.denoise(x, t, code, noise), draw_noise(target, generators), steps, generators, stop=done)
    x0, _ = cascade.denoise(x, t, code, noise)
    return latent_losses(x0, target, images, g, config, lpips) | pixel_losses(cascade, x0, images, g, config, lpips)


def latent_losses(x0: Tensor, target: Tensor, images: Tensor, g: torch.Generator, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    """L1 between latents, at full size and averaged over blocks of 2, 4, 8 and 16: colours and layout weigh most.

    At full size alone an encoder learns nothing for hundreds of steps: most of a latent is detail no code can carry.
    """
    difference = x0 - target
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= min(difference.shape[-2:])]
    losses = {"latent": sum(F.avg_pool2d(difference, size).abs().mean() for size in sizes)}
    if config.thumbnail_weight:
        losses["thumbnail"] = thumbnail_loss(x0, target, images, g, config, lpips)
    return losses


def thumbnail_loss(x0: Tensor, target: Tensor, images: Tensor, g: torch.Generator, config: TrainConfig, lpips: LPIPS) -> Tensor:
    """L1 + LPIPS-VGG at a quarter of the side, where a latent is almost a picture: no decoder runs, the whole crop is seen.

    A random margin of up to 8 of its pixels is cut, or VGG's pooling grid shows as diagonal stripes.
    The linear map from latent to colour is the least-squares fit of this batch's own true latents to its pictures.
    """
    with torch.no_grad(), torch.autocast(target.device.type, enabled=False):
        truth = F.avg_pool2d(images, 4)
        latents = F.pad(target.movedim(1, -1).reshape(-1, target.shape[1]), (0, 1), value=1.0)  # [N, 5]
        fit = torch.linalg.solve(latents.T @ latents, latents.T @ truth.movedim(1, -1).reshape(-1, 3))  # [5, 3]
    seen = torch.einsum("bchw,cd->bdhw", x0.float(), fit[:-1]) + fit[-1][:, None, None]
    top, left = torch.randint(9, (2,), generator=g).tolist()
    seen, truth = (t[..., top : t.shape[-2] - 8 + top, left : t.shape[-1] - 8 + left] for t in (seen, truth))
    with torch.no_grad():
        maps = lpips.maps(truth)
    return config.pixel_weight * F.l1_loss(seen, truth) + lpips.distance(lpips.maps(seen), maps).mean()


def noisy_condition(cascade: Cascade, images: Tensor, g: torch.Generator, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """The link's own transmitter, channel and equaliser: images -> code, noise, each [B, 16, hz, wz]."""
    factor = config.factor_min + (config.factor_max - config.factor_min) * torch.rand((), generator=g).item()
    z = encode(images, cascade.encoder, factor)
    x, gain = modulate(z)
    snr_db = config.snr_min + (config.snr_max - config.snr_min) * torch.rand(len(images), generator=g)
    if not config.channel_noise:
        snr_db = torch.full_like(snr_db, 100.0)
    generators = [step_generator(int(s), 0, 1) for s in torch.randint(1 << 30, (len(images),), generator=g)]
    received = uneven(awgn(x, snr_db.to(x.device), generators), x, g, config)
    code, noise = condition(received, gain, z.shape[1:], cascade.config.noise_aware)
    keep = (torch.rand(len(images), generator=g) >= config.condition_drop).to(code)
    return code * keep[:, None, None, None], noise


def uneven(received: Received, x: Tensor, g: torch.Generator, config: TrainConfig) -> Received:
    """Let some pictures' symbols fade and others' get lost, so that a receiver learns to read the noise map.

    Interleaved OFDM over a multipath channel looks like independent Rayleigh fading to the code; so do lost packets like
    lost symbols. Drawn for every picture alike, then chosen: what one picture gets does not depend on the shares.
    """
    if not config.fading + config.erasures:
        return received
    y, h, noise_var = received
    kind = torch.rand(len(x), 1, generator=g).to(x.device)
    re, im = torch.randn(2, *x.shape, generator=g).to(x.device)
    lost = torch.rand(x.shape, generator=g) < 0.5 * torch.rand(len(x), 1, generator=g)
    h = torch.where(kind < config.fading, torch.complex(re, im) / 2**0.5, h)
    noise_var = torch.where((kind >= 1 - config.erasures) & lost.to(x.device), torch.inf, noise_var)
    return Received(torch.where(noise_var.isinf(), 0, y - x + h * x), h, noise_var)


def pixel_losses(
    cascade: Cascade, latent: Tensor, images: Tensor, g: torch.Generator, config: TrainConfig, lpips: LPIPS
) -> dict[str, Tensor]:
    """Decode a random window of the latent and compare it with the picture. Its offset is any pixel, not any block."""
    if not config.window:
        return {}
    side = config.window // 4 + MARGIN  # latent pixels
    top, left = (int(torch.randint(n - side + 1, (), generator=g)) for n in latent.shape[-2:])
    decoded = cascade.stage_a.decode(latent[..., top : top + side, left : left + side]).float()
    v, w = torch.randint(4 * MARGIN + 1, (2,), generator=g).tolist()
    decoded = decoded[..., v : v + config.window, w : w + config.window]
    truth = images[..., 4 * top + v : 4 * top + v + config.window, 4 * left + w : 4 * left + w + config.window]
    with torch.no_grad():
        maps = lpips.maps(truth)
    return {"pixel": F.l1_loss(decoded, truth), "lpips": lpips.distance(lpips.maps(decoded), maps).mean()}


PHASES: dict[str, tuple[Callable, tuple[str, ...]]] = {  # name: loss, networks that learn
    "autoencoder": (autoencoder_loss, ("stage_a",)),
    "joint": (joint_loss, ("encoder", "stage_b")),
    "fewstep": (fewstep_loss, ("stage_b",)),
}

PRESETS = {  # what won so far; LOG.md tells what each setting was measured against
    "autoencoder": TrainConfig(phase="autoencoder", steps=1300, lr=2e-3, crop=128, window=96, lpips_weight=0.5),
    "joint": TrainConfig(
        phase="joint", steps=4000, lr=1e-3, window=0, thumbnail_weight=1.0, latent_weight=0.5, from_noise=0.85, batch_norm_until=0.2
    ),
    "fewstep": TrainConfig(phase="fewstep", steps=600, lr=6e-4, window=96, pixel_weight=3.0, thumbnail_weight=0.5, latent_weight=0.3),
}


def train(
    cascade: Cascade,
    photos: Photos,
    config: TrainConfig,
    folder: Path,
    lpips: LPIPS,
    device: str = "cpu",
    resume: bool = False,
    command: str = "",
    progress: bool = True,
) -> Path:
    """Run or resume one phase. Returns the folder of the trained model (EMA weights), `folder`/model.

    Raises:
        InputError: the folder already holds a run and `resume` is False, or the loss is not finite.
    """
    folder, last = Path(folder), Path(folder) / "last"
    if not last.exists() and last.with_name("last.old").exists():  # interrupted between the two renames of `_save`
        last.with_name("last.old").rename(last)
    if last.exists() and not resume:
        raise InputError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if config.fading + config.erasures:
        cascade = with_noise_map(cascade)
    loss_function, learning = PHASES[config.phase]
    cascade.to(device).eval().requires_grad_(False)
    parameters = {}
    for name in learning:
        network = getattr(cascade, name).requires_grad_(True)
        parameters |= {f"{name}.{k}": p for k, p in network.named_parameters()}
    for module in cascade.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.05  # batches are small; a longer memory gives steadier statistics
    lpips.to(device)
    optimiser = torch.optim.AdamW(parameters.values(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True)
    ema = {k: v.detach().clone() for k, v in cascade.state_dict().items() if k.split(".")[0] in learning}
    frozen = {name: fingerprint(network) for name, network in cascade.named_children() if name not in learning}
    start = 0
    if resume and last.exists():
        start = _load(last, cascade, parameters, optimiser, ema, config, frozen)
        rows = (folder / "log.jsonl").read_text().splitlines(keepends=True)
        write_text(folder / "log.jsonl", "".join(row for row in rows if json.loads(row)["step"] < start))
    run = {"config": asdict(config), "model": asdict(cascade.config), "command": command, "pictures": len(photos)}
    write_text(folder / "config.json", json.dumps(run, indent=1) + "\n")
    if config.compile:
        cascade.stage_b.compile()

    preview = photos.crops(256, 4, step_generator(config.seed, 0, 9))
    batches = Prefetcher(lambda step: photos.crops(config.crop, config.batch, step_generator(config.seed, step, 0)))
    weights = {"latent": config.latent_weight, "pixel": config.pixel_weight, "lpips": config.lpips_weight}
    weights["thumbnail"] = config.thumbnail_weight
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not progress, desc=config.phase)
    try:
        with open(folder / "log.jsonl", "a") as log:
            began = time.monotonic()
            for step in bar:
                lr = learning_rate(config, step)
                for group in optimiser.param_groups:
                    group["lr"] = lr
                for name in learning:
                    getattr(cascade, name).train()
                cascade.encoder.train("encoder" in learning and step < config.batch_norm_until * config.steps)
                torch.manual_seed(step_generator(config.seed, step, 3).initial_seed())  # dropout knows no other generator
                images = batches(step).to(device)
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.bf16):
                    losses = loss_function(cascade, images, step_generator(config.seed, step, 1), config, lpips)
                    loss = sum(weights[k] * v for k, v in losses.items())
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip)
                if not torch.isfinite(norm):
                    raise InputError(
                        f"the loss or its gradient is not finite at step {step} (seed {config.seed}); lower lr, or look at its pictures"
                    )
                optimiser.step()
                update_ema(ema, cascade, min(config.ema, (1 + step) / (10 + step)))
                row = {"step": step, "loss": loss.item(), **{k: v.item() for k, v in losses.items()}, "grad": norm.item(), "lr": lr}
                log.write(json.dumps(row | {"time_s": round(time.monotonic() - began, 2)}) + "\n")
                log.flush()
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                done = step + 1
                if done % config.save_every == 0 or done == config.steps:
                    _save(last, cascade, optimiser, parameters, ema, config, frozen, done)
                if done % config.sample_every == 0 or done == config.steps:
                    write_preview(with_weights(cascade, ema), preview.to(device), folder / "samples" / f"{done:06d}.png", config.phase)
    finally:
        batches.close()
    trained = with_weights(cascade, ema)
    if config.phase == "autoencoder":
        trained = calibrated(trained, preview=photos.crops(256, 64, step_generator(config.seed, 0, 8)).to(device))
    save_model(trained, folder / "model")
    return folder / "model"


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to lr_end * lr."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (config.lr_end + (1 - config.lr_end) * 0.5 * (1 + math.cos(math.pi * share)))


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], cascade: Cascade, decay: float) -> None:
    state = cascade.state_dict()
    for key, average in ema.items():
        if average.is_floating_point():
            average.lerp_(state[key], 1 - decay)
        else:
            average.copy_(state[key])


def with_weights(cascade: Cascade, state: dict[str, Tensor]) -> Cascade:
    """A copy of the model in evaluation mode, with `state` in place of its own weights."""
    with torch.device("meta"):
        copy = Cascade(cascade.config)
    copy.load_state_dict(cascade.state_dict() | state, assign=True)
    return copy.eval().requires_grad_(False)


def with_noise_map(cascade: Cascade) -> Cascade:
    """The same model with a noise map in Stage B, zero until it learns, unless it has one."""
    if cascade.config.stage_b.noise_map:
        return cascade
    copy = Cascade(replace(cascade.config, noise_aware=True, stage_b=replace(cascade.config.stage_b, noise_map=True)))
    copy.load_state_dict(cascade.state_dict(), strict=False)
    return copy.eval()


def calibrated(cascade: Cascade, preview: Tensor) -> Cascade:
    """The same model with Stage A's scale_factor set so that its latent has unit variance."""
    deviation = cascade.stage_a.encode(preview).std().item() * cascade.config.stage_a.scale_factor
    config = replace(cascade.config, stage_a=replace(cascade.config.stage_a, scale_factor=round(deviation, 4)))
    copy = Cascade(config)
    copy.load_state_dict(cascade.state_dict())
    return copy.eval()


@torch.no_grad()
def write_preview(cascade: Cascade, images: Tensor, path: Path, phase: str) -> None:
    """Rows: the pictures, then what comes back (through Stage A alone, or the link at 20, 10 and 1 dB)."""
    rows = [images]
    if phase == "autoencoder":
        rows.append(cascade.stage_a.decode(cascade.stage_a.encode(images)))
    else:
        z = encode(images, cascade.encoder, cascade.config.factor)
        x, gain = modulate(z)
        header = Header(0, *images.shape[-2:], cascade.config.factor, 1.0, 0)
        for snr_db in (20.0, 10.0, 1.0):
            generators = [step_generator(i, 0, 2) for i in range(len(images))]
            received = awgn(x, snr_db, generators)
            rows.append(receive(received, header, gain, cascade, generators))
    path.parent.mkdir(exist_ok=True)
    write_png(path, np.concatenate([np.concatenate([to_pixels(i[None]) for i in row], axis=1) for row in rows], axis=0))


def _save(last: Path, cascade, optimiser, parameters, ema, config, frozen, done: int) -> None:
    """Write a new folder, then swap: an interrupt leaves the old checkpoint or the new one, never half of each."""
    partial = last.with_name("last.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    moments = {}
    for name, p in parameters.items():
        moments |= {f"{name}|{k}": torch.as_tensor(v) for k, v in optimiser.state[p].items()}
    save_tensors({k: v.clone() for k, v in cascade.state_dict().items() if k in ema}, partial / "network.safetensors")
    save_tensors(ema, partial / "ema.safetensors")
    save_tensors(moments, partial / "optimiser.safetensors")
    write_text(partial / "state.json", json.dumps({"step": done, "config": asdict(config), "frozen": frozen}) + "\n")
    old = last.with_name("last.old")
    shutil.rmtree(old, ignore_errors=True)
    if last.exists():
        last.rename(old)
    partial.rename(last)
    shutil.rmtree(old, ignore_errors=True)


def _load(last: Path, cascade, parameters, optimiser, ema, config, frozen) -> int:
    state = json.loads((last / "state.json").read_text())
    if state["config"] != json.loads(json.dumps(asdict(config))):
        changed = [k for k, v in asdict(config).items() if state["config"].get(k) != v]
        raise InputError(f"{last.parent} was run with other settings ({', '.join(changed)}); resume with the same ones")
    if changed := [name for name, value in frozen.items() if state["frozen"].get(name) != value]:
        raise InputError(f"{last.parent} was run with another {' and '.join(changed)}; resume with the same --init")
    cascade.load_state_dict(load_tensors(last / "network.safetensors"), strict=False)
    for key, value in load_tensors(last / "ema.safetensors").items():
        ema[key].copy_(value)
    moments = load_tensors(last / "optimiser.safetensors")
    for name, p in parameters.items():
        keys = [k for k in moments if k.startswith(name + "|")]
        optimiser.state[p] = {k.rsplit("|", 1)[1]: moments[k].to(p.device) for k in keys}
    return state["step"]
