"""Training: six phases (losses.py) over one loop.

    autoencoder   Stage A alone: L1 + LPIPS-VGG
    code          the encoder alone: a linear code to start from
    decode        Stage B alone on that code, channel noise in between
    joint         encoder and Stage B together
    fewstep       Stage B on its own samples: the sampler walks to a random step, that step is trained
    denoise       Stage B on noisy conditions by the squared error of its output: the paper's fine-tuning

What a step sees depends on (seed, step) alone: on a CPU an interrupted run that resumes makes the same losses as one
that was never interrupted (some of torch's GPU kernels are not deterministic), and so do several processes that share
the batch of the phase `denoise` (the others have terms over a whole share, such as batch statistics). The settings:
presets.py. What a run leaves on disk: run_folder.py. Sharing a batch: processes.py.
"""

import math
import time
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import latents, run_folder
from .cascade.checkpoint import fingerprint, save_model
from .cascade.model import Cascade
from .cascade.stage_b import StageB
from .channel import awgn
from .critic import Critic
from .data import Photos, Prefetcher, step_generator
from .errors import InputError
from .images import to_pixels, write_png
from .losses import BUCKETS, PHASES, Step, bf16, linear_code_basis, update_buckets
from .lpips import LPIPS
from .presets import TERMS, TrainConfig
from .processes import gather, shares, start_processes, wait_for_all
from .receiver import receive
from .run_folder import State
from .transmitter import Header, encode, modulate

# What a generator of `step_generator` is for; latents.py has 16 and more.
BATCH, DRAWS, NOISE, DROPOUT, CRITIC, STATISTICS, CALIBRATION, PREVIEW = 0, 1, 2, 3, 4, 7, 8, 9


def train(
    cascade: Cascade,
    photos: Photos,
    config: TrainConfig,
    folder: Path,
    lpips: LPIPS | None = None,
    device: str = "cpu",
    resume: bool = False,
    command: str = "",
    cache: Path | None = None,
    progress: bool = True,
) -> Path:
    """Run or resume one phase. Returns the folder of the trained model (EMA weights), `folder`/model.

    Started by torchrun or `accelerate launch`, every process takes its share of each batch, and the first one writes.

    Args:
        lpips: VGG, for the phases that use it.
        command: what was typed, for config.json.
        cache: folder for the latents of fixed crops ("denoise" only): see latents.py.
    Raises:
        InputError: the folder already holds a run and `resume` is False, or the loss is not finite.
    """
    folder = Path(folder)
    if cache is not None and config.phase != "denoise":
        raise InputError(f"a cache of latents serves the phase denoise, not {config.phase}")
    rank, processes = start_processes(device)
    rows, writes = shares(config, rank, processes), rank == 0
    if writes:
        run_folder.repair(folder)
    wait_for_all(processes)
    resumes = run_folder.claim(folder, resume)
    state = make_state(cascade, config, device)
    start = run_folder.load(folder, state) if resumes else 0
    if writes:
        run_folder.begin(folder, state, start, command, len(photos))
    if lpips is not None:
        lpips.to(device)
    if cache is not None:
        if writes:
            latents.fill(cache, state.cascade, photos, config, device, progress)
        wait_for_all(processes)
    basis = code_basis(photos, config, device) if config.phase == "code" else None
    preview = photos.crops(min(config.crop, 512), 4, step_generator(config.seed, 0, PREVIEW))
    batches = Prefetcher(lambda step: [read_part(photos, config, step, part, cache) for part in rows])
    logging = run_folder.open_log(folder, start) if writes else nullcontext(lambda row: None)
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not (progress and writes), desc=config.phase)
    with tuned(state.cascade.stage_b, config), logging as log, closing(batches):
        began = time.monotonic()
        for step in bar:
            asked = time.monotonic()
            parts = batches(step)
            waited = time.monotonic() - asked
            found = backward(state, step, rows, parts, lpips, device, basis)
            terms = gather(found, state.parameters.values(), processes)
            norm = clip_gradients(state)
            check_finite(norm, photos, config, step)
            update(state, step, terms)
            row = {"step": step} | {k: v.mean().item() for k, v in terms.items() if k != "bucket"}
            row |= {"grad": norm.item(), "lr": learning_rate(config, step)}
            row |= {"time_s": round(time.monotonic() - began, 3), "wait_s": round(waited, 4)}  # since the start; for pictures, this step
            log(row)
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            done = step + 1
            if writes and (done % config.save_every == 0 or done == config.steps):
                run_folder.save(folder, state, done)
            if writes and (done % config.sample_every == 0 or done == config.steps):
                write_preview(trained(state), preview.to(device), folder / "samples" / f"{done:06d}.png", config.phase)
    if writes:
        model = trained(state)
        if config.phase == "autoencoder":
            model = calibrated(model, photos.crops(256, 64, step_generator(config.seed, 0, CALIBRATION)).to(device))
        save_model(model, folder / "model")
    wait_for_all(processes)
    return folder / "model"


def make_state(cascade: Cascade, config: TrainConfig, device: str) -> State:
    """The model as the phase wants it, on the device, with a new optimiser; only the networks that learn have gradients."""
    if config.fading + config.erasures:
        cascade = with_noise_map(cascade)
    if config.prediction:
        cascade.config = replace(cascade.config, prediction=config.prediction)
    if config.factor_min == config.factor_max:
        cascade.config = replace(cascade.config, factor=config.factor_min)
    if config.phase == "fewstep":
        if cascade.config.prediction == "epsilon":
            raise InputError("fewstep trains on x0, which is 100 times the error of epsilon at t = 1: train with --set prediction=v first")
        cascade.config = replace(cascade.config, guidance=1.0)  # it learns to do without
    learning = PHASES[config.phase][1]
    cascade.to(device).eval().requires_grad_(False)
    parameters = {}
    for name in learning:
        network = getattr(cascade, name).requires_grad_(True)
        parameters |= {f"{name}.{k}": p for k, p in network.named_parameters()}
    critic = None
    if config.adversarial_weight:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_generator(config.seed, 0, CRITIC).initial_seed())
            critic = Critic().to(device)
        parameters |= {f"critic.{k}": p for k, p in critic.named_parameters()}
    for module in cascade.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.05  # batches are small; a longer memory gives steadier statistics
    learnt = {k: v.detach().clone() for k, v in cascade.state_dict().items() if k.split(".")[0] in learning}
    return State(
        config=config,
        cascade=cascade,
        parameters=parameters,
        optimiser=make_optimiser(parameters, config),
        ema=learnt if config.ema else {},
        buckets=torch.ones(BUCKETS),
        critic=critic,
        frozen={name: fingerprint(network) for name, network in cascade.named_children() if name not in learning},
    )


def make_optimiser(parameters: dict[str, Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    settings = {"lr": config.lr, "betas": (0.9, config.beta2), "weight_decay": config.weight_decay}
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters.values(), fused=True, **settings)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise InputError("optimiser adamw8bit needs bitsandbytes; pip install 'semcast[train]'") from None
    return AdamW8bit(parameters.values(), **settings)


def read_part(photos: Photos, config: TrainConfig, step: int, rows: slice, cache: Path | None) -> Tensor | tuple[Tensor, Tensor]:
    """Rows of a step's batch: images [b, 3, S, S], or (Z, latent) from the cache."""
    g = step_generator(config.seed, step, BATCH)
    return latents.read(cache, photos, config, g, rows) if cache else photos.crops(config.crop, config.batch, g, rows)


def code_basis(photos: Photos, config: TrainConfig, device: str) -> tuple[Tensor, Tensor]:
    """`linear_code_basis` from 256 pictures."""
    images = torch.cat([photos.crops(256, 16, step_generator(config.seed, i, STATISTICS)) for i in range(16)])
    return tuple(part.to(device) for part in linear_code_basis(images, config.factor_min))


@contextmanager
def tuned(stage_b: StageB, config: TrainConfig):
    """Stage B recomputes its activations and is compiled meanwhile, if the settings say so."""
    stage_b.recompute = config.recompute
    if config.compile:
        stage_b.step = torch.compile(stage_b.step)
    try:
        yield
    finally:
        stage_b.recompute = False
        stage_b.__dict__.pop("step", None)  # the compiled one


def backward(
    state: State, step: int, rows: list[slice], parts: list, lpips: LPIPS | None, device: str, basis: tuple[Tensor, Tensor] | None
) -> list[dict[str, Tensor]]:
    """Put the gradient of this process's parts of the batch into `grad`. Returns of each part the loss and its terms."""
    config, device = state.config, torch.device(device)
    loss_function, learning = PHASES[config.phase]
    for name in learning:
        getattr(state.cascade, name).train()
    state.cascade.encoder.train("encoder" in learning and step < config.batch_norm_until * config.steps)
    state.optimiser.zero_grad(set_to_none=True)
    found = []
    for part_rows, part in zip(rows, parts):
        # dropout knows no other generator
        torch.manual_seed(step_generator(config.seed, step, DROPOUT).initial_seed() + part_rows.start)
        part = tuple(p.to(device) for p in part) if isinstance(part, tuple) else part.to(device)
        generator, buckets = step_generator(config.seed, step, DRAWS), state.buckets.to(device)
        draws = Step(generator, config.batch, part_rows, device, buckets, basis, state.critic)
        with bf16(device, config.bf16):
            terms = loss_function(state.cascade, part, draws, config, lpips)
            loss = sum(weight * terms[k].mean() for k, weight in weights(config).items() if k in terms)
        (loss / config.accumulate).backward()
        found.append({"loss": loss.detach()} | {k: v.detach().float() for k, v in terms.items()})
    return found


def weights(config: TrainConfig) -> dict[str, float]:
    """Of the terms of a loss; the other terms are only logged."""
    return {"denoise": 1.0, "code": 1.0, "critic": 1.0} | {term: getattr(config, f"{term}_weight") for term in TERMS}


def clip_gradients(state: State) -> Tensor:
    """To the norm `clip`, the model's and the critic's each for itself. Returns the model's norm before."""
    critic = [p for name, p in state.parameters.items() if name.startswith("critic.")]
    model = [p for name, p in state.parameters.items() if not name.startswith("critic.")]
    nn.utils.clip_grad_norm_(critic, state.config.clip)
    return nn.utils.clip_grad_norm_(model, state.config.clip)


def check_finite(norm: Tensor, photos: Photos, config: TrainConfig, step: int) -> None:
    if not torch.isfinite(norm):
        names = {photos.items[i][0] for i in photos.picks(config.batch, step_generator(config.seed, step, BATCH))}
        raise InputError(
            f"the loss or its gradient is not finite at step {step} (seed {config.seed}); lower lr, or look at its "
            f"pictures: {', '.join(sorted(names))}"
        )


def update(state: State, step: int, terms: dict[str, Tensor]) -> None:
    """One step of the optimiser along `grad`, and of all that follows the weights."""
    config = state.config
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    state.optimiser.step()
    if config.adaptive_weight:
        update_buckets(state.buckets, terms["bucket"].long(), terms["error"])
    update_ema(state.ema, state.cascade, min(config.ema, (1 + step) / (10 + step)))


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


def trained(state: State) -> Cascade:
    """A copy of the model as it would be used now, with the averaged weights."""
    return with_weights(state.cascade, state.ema)


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


def calibrated(cascade: Cascade, images: Tensor) -> Cascade:
    """The same model with Stage A's scale_factor set so that its latent has unit variance."""
    deviation = cascade.stage_a.encode(images).std().item() * cascade.config.stage_a.scale_factor
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
            generators = [step_generator(i, 0, NOISE) for i in range(len(images))]
            received = awgn(x, snr_db, generators)
            rows.append(receive(received, header, gain, cascade, generators))
    path.parent.mkdir(exist_ok=True)
    write_png(path, np.concatenate([np.concatenate([to_pixels(i[None]) for i in row], axis=1) for row in rows], axis=0))
