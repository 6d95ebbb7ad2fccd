"""Training: one loop for eight phases (phases.py).

    autoencoder   Stage A alone: L1 + LPIPS-VGG
    encoder       the encoder alone: the best linear Z to start from
    decode        Stage B alone, on Z received over a channel
    joint         encoder and Stage B together
    fewstep       Stage B on its own samples: the sampler runs to a random step, which is then trained
    denoise       Stage B on noisy conditions, by the squared error of its output: the fine-tuning of the paper
    enhancement   the layers above Z and their decoder
    restorer      what makes a better picture of a packet's, behind the base

The data of a step depend only on (seed, step), and data.py says which picture takes the place of one that cannot be
read. On a CPU, a run that was interrupted and resumed therefore has the same losses as an uninterrupted one; some of
torch's GPU kernels are not deterministic. In the phase `denoise` the losses are also the same if several processes
share each batch; other phases have terms over a whole share, such as batch statistics.

config.py has the settings, run_folder.py the files of a run, and processes.py the sharing of batches.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..cascade.checkpoint import arrays, save_model
from ..cascade.config import ENHANCEMENT, RESTORER, SMALL_ENHANCEMENT, SMALL_RESTORER
from ..cascade.fingerprint import fingerprint
from ..cascade.model import Cascade
from ..cascade.stage_b import StageB
from ..cascade.torch_engine import TorchEngine
from ..errors import InputError, require
from ..images import to_pixels, write_png
from ..link import Link
from ..metrics.lpips import LPIPS
from . import latents, run_folder
from .config import PHASES, TERMS, TrainConfig
from .critic import Critic
from .data import Photos, Prefetcher, decoding, step_generator
from .losses import BUCKETS, Batch, Step, bf16, linear_basis, update_buckets
from .phases import LOSSES
from .processes import gather, shares, start_processes, wait_for_all
from .run_folder import State

# Purposes of `step_generator`; latents.py uses 16 and above.
BATCH, DRAWS, DROPOUT, CRITIC, STATISTICS, CALIBRATION, PREVIEW = 0, 1, 3, 4, 7, 8, 9
ADDED = {ENHANCEMENT: SMALL_ENHANCEMENT, RESTORER: SMALL_RESTORER}  # networks that a model gets when they are trained


@dataclass(frozen=True)
class Run:
    """What does not change during a run."""

    config: TrainConfig
    photos: Photos
    folder: Path
    lpips: LPIPS | None
    device: str
    cache: Path | None
    progress: bool
    rows: list[slice]  # rows of a batch that this process works on, a slice for each part
    processes: int
    writes: bool  # whether this process writes the files and shows the progress


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
    other_data: bool = False,
) -> Path:
    """Run or resume one phase. Returns the folder of the trained model (EMA weights), `folder`/model.

    If torchrun or `accelerate launch` starts several processes, they share each batch, and the first one writes.

    Args:
        lpips: LPIPS-VGG, for the phases that use it.
        command: the command line, for config.json.
        cache: folder for the latents of fixed crops, see latents.py; only for the phase "denoise".
        other_data: whether a run may be resumed with other pictures than it had.

    Raises:
        InputError: the folder already holds a run and `resume` is False, the pictures are others or cannot be read, or
            the loss is not finite.
    """
    if cache is not None and not PHASES[config.phase].cacheable:
        raise InputError(f"a cache of latents serves the phase denoise, not {config.phase}")
    rank, processes = start_processes(device)
    rows = shares(config, rank, processes)
    run = Run(config, photos, Path(folder), lpips, device, cache, progress, rows, processes, writes=rank == 0)
    state, start = prepare(run, cascade, resume, command, other_data)
    run_steps(run, state, start)
    if run.writes:
        model = trained(state)
        if PHASES[config.phase].autoencodes:
            model = calibrated(model, photos.crops(256, 64, step_generator(config.seed, 0, CALIBRATION)).to(device))
        save_model(model, run.folder / "model")
    wait_for_all(processes)
    return run.folder / "model"


def prepare(run: Run, cascade: Cascade, resume: bool, command: str, other_data: bool) -> tuple[State, int]:
    """Check the pictures, set up the folder, the state and the cache of a run.

    Returns:
        The state and the step to start with.
    """
    run.photos.check_heads()
    if run.writes:
        run_folder.repair(run.folder)
    wait_for_all(run.processes)
    resumes = run_folder.claim(run.folder, resume)
    state = make_state(cascade, run.config, run.device)
    state.data = run.photos.fingerprint()
    start = run_folder.load(run.folder, state, other_data) if resumes else 0
    if run.writes:
        run_folder.begin(run.folder, state, start, command, len(run.photos))
    if run.lpips is not None:
        run.lpips.to(run.device)
    if run.cache is not None:
        if run.writes:
            latents.fill(run.cache, state.cascade, run.photos, run.config, run.device, run.progress)
        wait_for_all(run.processes)
    return state, start


def run_steps(run: Run, state: State, start: int) -> None:
    """Take the steps from `start` to the last, log them, and save checkpoints and previews."""
    config, photos = run.config, run.photos
    basis = fit_basis(photos, config, run.device) if PHASES[config.phase].fits_linear else None
    preview = photos.crops(min(config.crop, 512), 4, step_generator(config.seed, 0, PREVIEW))
    batches = Prefetcher(lambda step: [read_part(photos, config, step, part, run.cache) for part in run.rows])
    logging = run_folder.open_log(run.folder, start) if run.writes else nullcontext(lambda row: None)
    hidden = not (run.progress and run.writes)
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=hidden, desc=config.phase)
    checked = decoding(photos) if run.writes and run.cache is None else nullcontext(lambda wait: None)
    with tuned(state.cascade.stage_b, config), logging as log, closing(batches), checked as look:
        began = time.monotonic()
        for step in bar:
            look(False)
            asked = time.monotonic()
            parts = batches(step)
            waited = time.monotonic() - asked
            row = take_step(run, state, step, parts, basis)
            # time_s: since this process started its steps; wait_s: waiting for the pictures of this step
            row |= {"time_s": round(time.monotonic() - began, 3), "wait_s": round(waited, 4)}
            log(row)
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            if run.writes:
                save_progress(run, state, step + 1, preview)
        look(photos.strict)


def take_step(
    run: Run, state: State, step: int, parts: list[Batch], basis: tuple[Tensor, Tensor] | None
) -> dict[str, float]:
    """Take one step of the optimiser. Returns its row for the log."""
    found = backward(state, step, run.rows, parts, run.lpips, run.device, basis)
    terms = gather(found, state.parameters.values(), run.processes)
    norm = clip_gradients(state)
    check_finite(norm, run.photos, run.config, step)
    update(state, step, terms)
    row = {"step": step} | {k: v.mean().item() for k, v in terms.items() if k != "bucket"}
    return row | {"grad": norm.item(), "lr": learning_rate(run.config, step)}


def save_progress(run: Run, state: State, done: int, preview: Tensor) -> None:
    """Save a checkpoint and a preview after `done` steps, if they are due."""
    config, last = run.config, done == run.config.steps
    if done % config.save_every == 0 or last:
        run_folder.save(run.folder, state, done)
    if done % config.sample_every == 0 or last:
        path = run.folder / "samples" / f"{done:06d}.png"
        write_preview(trained(state), preview.to(run.device), path, PHASES[config.phase].autoencodes)


def make_state(cascade: Cascade, config: TrainConfig, device: str) -> State:
    """Adapt the model to the phase, place it on the device and make an optimiser for the networks that it trains."""
    if config.fading + config.erasures:
        cascade = with_noise_map(cascade)
    for network in ADDED.keys() & PHASES[config.phase].learns:
        cascade = with_network(cascade, network, config.seed)
    understands = () if "encoder" in PHASES[config.phase].learns else cascade.config.understands
    cascade.config = replace(cascade.config, same_as="", understands=understands)  # other weights from now on
    if config.prediction:
        cascade.config = replace(cascade.config, prediction=config.prediction)
    if config.factor_min == config.factor_max:
        cascade.config = replace(cascade.config, factor=config.factor_min)
    if PHASES[config.phase].unguided:
        if cascade.config.prediction == "epsilon":
            raise InputError(
                "fewstep trains on x0, which is 100 times the error of epsilon at t = 1: "
                "train with --set prediction=v first"
            )
        cascade.config = replace(cascade.config, guidance=1.0)  # few-step training makes guidance unnecessary
    learning = PHASES[config.phase].learns
    cascade.place(device).eval().requires_grad_(False)
    parameters = {}
    for name in learning:
        network = getattr(cascade, name).requires_grad_(True)
        parameters |= {f"{name}.{k}": p for k, p in network.named_parameters()}
    critic = None
    if config.adversarial_weight:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(step_generator(config.seed, 0, CRITIC).integers(2**63)))
            critic = Critic().to(device)
        parameters |= {f"critic.{k}": p for k, p in critic.named_parameters()}
    for module in cascade.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.05  # small batches need a longer memory than torch's 0.1; with 0.02 the variance lagged
    learnt = {k: v.detach().clone() for k, v in cascade.state_dict().items() if k.split(".")[0] in learning}
    return State(
        config=config,
        cascade=cascade,
        parameters=parameters,
        optimiser=make_optimiser(parameters, config),
        ema=learnt if config.ema else {},
        buckets=torch.ones(BUCKETS),
        critic=critic,
        frozen={n: fingerprint(arrays(network)) for n, network in cascade.named_children() if n not in learning},
    )


def make_optimiser(parameters: Mapping[str, Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    settings = {"lr": config.lr, "betas": (0.9, config.beta2), "weight_decay": config.weight_decay}
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters.values(), fused=True, **settings)
    require("optimiser adamw8bit", "bitsandbytes")
    from bitsandbytes.optim.adamw import AdamW8bit

    return AdamW8bit(parameters.values(), **settings)


def read_part(photos: Photos, config: TrainConfig, step: int, rows: slice, cache: Path | None) -> Batch:
    """Read some rows of a step's batch, from the cache if there is one."""
    g = step_generator(config.seed, step, BATCH)
    return latents.read(cache, photos, config, g, rows) if cache else photos.crops(config.crop, config.batch, g, rows)


def fit_basis(photos: Photos, config: TrainConfig, device: str) -> tuple[Tensor, Tensor]:
    """Compute `linear_basis` from 256 pictures."""
    images = torch.cat([photos.crops(256, 16, step_generator(config.seed, i, STATISTICS)) for i in range(16)])
    mean, projection = linear_basis(images, config.factor_min)
    return mean.to(device), projection.to(device)


@contextmanager
def tuned(stage_b: StageB, config: TrainConfig) -> Iterator[None]:
    """A context in which Stage B recomputes its activations and is compiled, if the settings say so."""
    stage_b.recompute = config.recompute
    if config.compile:
        stage_b.step = torch.compile(stage_b.step)
    try:
        yield
    finally:
        stage_b.recompute = False
        stage_b.__dict__.pop("step", None)  # removes the compiled one


def backward(
    state: State,
    step: int,
    rows: list[slice],
    parts: list[Batch],
    lpips: LPIPS | None,
    device: str,
    basis: tuple[Tensor, Tensor] | None,
) -> list[dict[str, Tensor]]:
    """Accumulate the gradient over this process's parts of the batch. Returns the loss and its terms for each part."""
    config, torch_device = state.config, torch.device(device)
    loss_function, learning = LOSSES[config.phase], PHASES[config.phase].learns
    for name in learning:
        getattr(state.cascade, name).train()
    state.cascade.encoder.train("encoder" in learning and step < config.batch_norm_until * config.steps)
    state.optimiser.zero_grad(set_to_none=True)
    found = []
    for part_rows, part in zip(rows, parts):
        # dropout can only draw from the global generator
        torch.manual_seed(int(step_generator(config.seed, step, DROPOUT).integers(2**62)) + part_rows.start)
        if isinstance(part, tuple):
            part = part[0].to(torch_device), part[1].to(torch_device)
        else:
            part = part.to(torch_device)
        generator, buckets = step_generator(config.seed, step, DRAWS), state.buckets.to(torch_device)
        draws = Step(generator, config.batch, part_rows, torch_device, buckets, basis, state.critic)
        with bf16(torch_device, config.bf16):
            terms = loss_function(state.cascade, part, draws, config, lpips)
            weighted = (weight * terms[k].mean() for k, weight in weights(config).items() if k in terms)
            loss = sum(weighted, torch.zeros((), device=torch_device))
        (loss / config.accumulate).backward()
        found.append({"loss": loss.detach()} | {k: v.detach().float() for k, v in terms.items()})
    return found


def weights(config: TrainConfig) -> dict[str, float]:
    """The weights of a loss's terms; terms without a weight are only logged."""
    return {"denoise": 1.0, "linear": 1.0, "critic": 1.0} | {term: getattr(config, f"{term}_weight") for term in TERMS}


def clip_gradients(state: State) -> Tensor:
    """Clip the gradients of model and critic separately to the norm `clip`. Returns the model's norm before."""
    critic = [p for name, p in state.parameters.items() if name.startswith("critic.")]
    model = [p for name, p in state.parameters.items() if not name.startswith("critic.")]
    nn.utils.clip_grad_norm_(critic, state.config.clip)
    return nn.utils.clip_grad_norm_(model, state.config.clip)


def check_finite(norm: Tensor, photos: Photos, config: TrainConfig, step: int) -> None:
    """Refuse a gradient that is not finite; the message names the pictures of the step."""
    if not torch.isfinite(norm):
        names = {
            photos.items[photos.shown(i)][0]
            for i in photos.picks(config.batch, step_generator(config.seed, step, BATCH))
        }
        raise InputError(
            f"the loss or its gradient is not finite at step {step} (seed {config.seed}); lower lr, or look at its "
            f"pictures: {', '.join(sorted(names))}"
        )


def update(state: State, step: int, terms: dict[str, Tensor]) -> None:
    """Step the optimiser, and update the adaptive weight and the averaged weights."""
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
    """Move the averages towards the weights in place; integers are copied."""
    state = cascade.state_dict()
    for key, average in ema.items():
        if average.is_floating_point():
            average.lerp_(state[key], 1 - decay)
        else:
            average.copy_(state[key])


def trained(state: State) -> Cascade:
    """A copy of the model with the averaged weights, ready for use."""
    return with_weights(state.cascade, state.ema)


def with_weights(cascade: Cascade, state: dict[str, Tensor]) -> Cascade:
    """A copy of the model in evaluation mode, with `state` in place of its own weights."""
    with torch.device("meta"):
        copy = Cascade(cascade.config)
    copy.load_state_dict(cascade.state_dict() | state, assign=True)
    return copy.place(str(cascade.device)).eval().requires_grad_(False)


def with_noise_map(cascade: Cascade) -> Cascade:
    """The model with a noise map in Stage B; a new one has zero weights and changes nothing until it is trained."""
    if cascade.config.stage_b.noise_map:
        return cascade
    copy = Cascade(replace(cascade.config, noise_aware=True, stage_b=replace(cascade.config.stage_b, noise_map=True)))
    copy.load_state_dict(cascade.state_dict(), strict=False)
    return copy.eval()


def with_network(cascade: Cascade, name: str, seed: int) -> Cascade:
    """The model with one of the networks of ADDED; a new one changes no picture until it is trained."""
    if getattr(cascade.config, name).exists:
        return cascade
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = Cascade(replace(cascade.config, **{name: ADDED[name]}))
    copy.load_state_dict(cascade.state_dict(), strict=False)
    return copy.eval()


def calibrated(cascade: Cascade, images: Tensor) -> Cascade:
    """A copy of the model whose `scale_factor` gives Stage A's latent unit variance."""
    deviation = cascade.stage_a.encode(images).std().item() * cascade.config.stage_a.scale_factor
    config = replace(cascade.config, stage_a=replace(cascade.config.stage_a, scale_factor=round(deviation, 4)))
    copy = Cascade(config)
    copy.load_state_dict(cascade.state_dict())
    return copy.eval()


@torch.no_grad()
def write_preview(cascade: Cascade, images: Tensor, path: Path, autoencodes: bool) -> None:
    """Write a sheet: a row of pictures, then what Stage A alone or the link at 20, 10 and 1 dB makes of them."""
    rows = [images]
    if autoencodes:
        rows.append(cascade.stage_a.decode(cascade.stage_a.encode(images)))
    else:
        link, sent = Link(TorchEngine(cascade)), images.cpu().numpy()
        rows += [
            np.concatenate([link(image[None], snr_db, seed).image for seed, image in enumerate(sent)])
            for snr_db in (20.0, 10.0, 1.0)
        ]
    path.parent.mkdir(exist_ok=True)
    rows = [row.cpu().numpy() if isinstance(row, Tensor) else row for row in rows]
    write_png(path, np.concatenate([np.concatenate([to_pixels(i[None]) for i in row], axis=1) for row in rows], axis=0))
