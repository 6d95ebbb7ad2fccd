"""Training: six phases (losses.py) over one loop.

    autoencoder   Stage A alone: L1 + LPIPS-VGG
    code          the encoder alone: a linear code to start from
    decode        Stage B alone on that code, channel noise in between
    joint         encoder and Stage B together
    fewstep       Stage B on its own samples: the sampler walks to a random step, that step is trained
    denoise       Stage B on noisy conditions by the squared error of epsilon: the paper's fine-tuning

What a step sees depends on (seed, step) alone: on a CPU an interrupted run that resumes makes the same losses as one
that was never interrupted (some of torch's GPU kernels are not deterministic), and so do several processes that share
the batch of the phase `denoise` (the others have terms over a whole share, such as batch statistics). A run folder holds
config.json, log.jsonl, samples/, last/ (to resume) and model/ (to use).
"""

import json
import math
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from tqdm import tqdm

from . import latents
from .cascade.checkpoint import fingerprint, load_tensors, save_model, save_tensors, write_text
from .cascade.model import Cascade
from .channel import awgn
from .data import Photos, Prefetcher, step_generator
from .errors import InputError
from .images import to_pixels, write_png
from .losses import BUCKETS, MARGIN, PHASES, Step, linear_code_basis, update_buckets
from .lpips import LPIPS
from .receiver import receive
from .transmitter import Header, encode, modulate


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
    beta2: float = 0.99  # of AdamW; beta1 is 0.9
    optimiser: str = "adamw"  # or "adamw8bit": moments in 8 bits, by bitsandbytes
    accumulate: int = 1  # parts a batch is cut into, one after the other, to save memory
    recompute: bool = False  # gradient checkpointing in Stage B
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999  # 0: no average, the model is the last weights
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
    prediction: str = ""  # what Stage B is to output from now on: "epsilon", "x0" or "v"; empty: as before
    adaptive_weight: bool = False  # denoise: weigh each diffusion time by 1 over its running loss
    pyramid_noise: bool = False  # denoise: diffusion noise with coarser fields in it
    cache_crops: int = 1  # denoise with a cache: fixed crops of every picture
    condition_drop: float = 0.0  # share of pictures whose condition is zeroed, after the noise
    from_noise: float = 0.7  # share of pictures at t = 1; the others at uniform t
    latent_weight: float = 1.0  # L1 between latents, summed over five scales
    pixel_weight: float = 1.0  # L1 between decoded windows
    lpips_weight: float = 1.0  # LPIPS-VGG between decoded windows
    spectrum_weight: float = 0.0  # power of decoded windows at frequencies where the true ones have less
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
            ("accumulate", self.accumulate >= 1, "1 or more"),
            ("optimiser", self.optimiser in ("adamw", "adamw8bit"), "adamw or adamw8bit"),
            ("prediction", self.prediction in ("", "epsilon", "x0", "v"), "epsilon, x0 or v"),
            ("cache_crops", 1 <= self.cache_crops <= 200, "1 to 200"),
            ("snr_min", -30 <= self.snr_min <= self.snr_max <= 60, "-30 <= snr_min <= snr_max <= 60"),
            ("fading", self.fading >= 0 and self.erasures >= 0 and self.fading + self.erasures <= 1, "shares, with erasures at most 1"),
            ("factor_min", 0.5 <= self.factor_min <= self.factor_max <= 1, "0.5 <= factor_min <= factor_max <= 1"),
            ("ema", 0 <= self.ema < 1, "0 to below 1"),
            ("save_every", self.save_every >= 1, "1 or more"),
            ("sample_every", self.sample_every >= 1, "1 or more"),
        ]
        if bad := [f"{name} = {getattr(self, name)!r}, allowed: {allowed}" for name, fine, allowed in rules if not fine]:
            raise InputError("bad training settings: " + "; ".join(bad))


FREE = ("recompute", "compile", "save_every", "sample_every")  # settings that may change between a run and its resumption
SCSIC = TrainConfig(  # arXiv 2507.17416, section 4; what it leaves open as in Stability-AI/StableCascade, train/train_b.py
    phase="denoise",
    steps=15_000,
    lr=1e-4,
    batch=4,
    warmup=1,
    lr_end=1.0,
    beta2=0.999,
    ema=0.0,
    snr_min=1.0,
    snr_max=20.0,
    condition_drop=0.1,  # sampling is guided, so the branch without condition has to stay trained
    crop=512,
    save_every=500,
)
JOINT = TrainConfig(
    phase="joint",
    steps=1000,
    lr=5e-4,
    window=0,
    thumbnail_weight=1.0,
    pixel_weight=3.0,
    latent_weight=0.5,
    from_noise=0.85,
    batch_norm_until=0.0,
    snr_min=-5.0,
    fading=0.15,
    erasures=0.15,
)
PRESETS = {  # what won so far; LOG.md tells what each setting was measured against
    "autoencoder": TrainConfig(phase="autoencoder", steps=1300, lr=2e-3, crop=128, window=96, lpips_weight=0.5),
    "code": TrainConfig(phase="code", steps=600, lr=2e-3, batch=16, window=0, warmup=20, lr_end=0.05, batch_norm_until=0.5, ema=0.98),
    "joint": JOINT,
    "decode": replace(JOINT, phase="decode"),
    "fewstep": TrainConfig(
        phase="fewstep", steps=600, lr=6e-4, window=96, pixel_weight=3.0, thumbnail_weight=0.5, latent_weight=0.3, spectrum_weight=0.1
    ),
    "scsic-512": SCSIC,
    "scsic-1024": replace(SCSIC, crop=1024),
}


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
        cache: folder for the latents of fixed crops ("denoise" only): see latents.py.
    Raises:
        InputError: the folder already holds a run and `resume` is False, or the loss is not finite.
    """
    folder, last = Path(folder), Path(folder) / "last"
    rank, processes = start_processes(device)
    writes = rank == 0
    if config.batch % (processes * config.accumulate):
        raise InputError(f"batch {config.batch} cannot be shared by {processes} processes in {config.accumulate} parts each")
    if writes and not last.exists() and last.with_name("last.old").exists():  # interrupted between the two renames of `_save`
        last.with_name("last.old").rename(last)
    wait_for_all(processes)
    if last.exists() and not resume:
        raise InputError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if config.fading + config.erasures:
        cascade = with_noise_map(cascade)
    if config.prediction:
        cascade.config = replace(cascade.config, prediction=config.prediction)
    loss_function, learning = PHASES[config.phase]
    cascade.to(device).eval().requires_grad_(False)
    parameters = {}
    for name in learning:
        network = getattr(cascade, name).requires_grad_(True)
        parameters |= {f"{name}.{k}": p for k, p in network.named_parameters()}
    for module in cascade.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.05  # batches are small; a longer memory gives steadier statistics
    if lpips is not None:
        lpips.to(device)
    optimiser = make_optimiser(parameters, config)
    ema = {k: v.detach().clone() for k, v in cascade.state_dict().items() if k.split(".")[0] in learning} if config.ema else {}
    buckets = torch.ones(BUCKETS)
    frozen = {name: fingerprint(network) for name, network in cascade.named_children() if name not in learning}
    start = 0
    if resume and last.exists():
        start = _load(last, cascade, parameters, optimiser, ema, buckets, config, frozen)
        if writes:
            kept = []
            for row in (folder / "log.jsonl").read_text().splitlines(keepends=True):
                with suppress(ValueError):  # the last line of a run that was killed may be torn
                    kept += [row] if json.loads(row)["step"] < start else []
            write_text(folder / "log.jsonl", "".join(kept))
    run = {"config": asdict(config), "model": asdict(cascade.config), "command": command, "pictures": len(photos)}
    if writes:
        write_text(folder / "config.json", json.dumps(run, indent=1) + "\n")
    cascade.stage_b.recompute = config.recompute
    if config.compile:
        cascade.stage_b.step = torch.compile(cascade.stage_b.step)
    if cache is not None:
        if config.phase != "denoise":
            raise InputError(f"a cache of latents serves the phase denoise, not {config.phase}")
        if writes:
            latents.fill(cache, cascade, photos, config, device, progress)
        wait_for_all(processes)

    def make(step: int) -> list[Tensor | tuple[Tensor, Tensor]]:
        """This process's parts of the batch."""
        parts = []
        for rows in shares(config, rank, processes):
            g = step_generator(config.seed, step, 0)
            made = latents.read(cache, photos, config, g, rows) if cache else photos.crops(config.crop, config.batch, g, rows)
            parts.append(made)
        return parts

    basis = None
    if config.phase == "code":
        statistics = torch.cat([photos.crops(256, 16, step_generator(config.seed, i, 7)) for i in range(16)])
        basis = tuple(part.to(device) for part in linear_code_basis(statistics, config.factor_min))
    preview = photos.crops(min(config.crop, 512), 4, step_generator(config.seed, 0, 9))
    batches = Prefetcher(make)
    board = scalars(folder / "tensorboard") if writes else None
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not (progress and writes), desc=config.phase)
    try:
        with open(folder / "log.jsonl" if writes else os.devnull, "a") as log:
            began = time.monotonic()
            for step in bar:
                lr = learning_rate(config, step)
                for group in optimiser.param_groups:
                    group["lr"] = lr
                for name in learning:
                    getattr(cascade, name).train()
                cascade.encoder.train("encoder" in learning and step < config.batch_norm_until * config.steps)
                optimiser.zero_grad(set_to_none=True)
                found = []  # of each part: the loss and its terms
                for rows, part in zip(shares(config, rank, processes), batches(step)):
                    # dropout knows no other generator
                    torch.manual_seed(step_generator(config.seed, step, 3).initial_seed() + rows.start)
                    part = tuple(p.to(device) for p in part) if isinstance(part, tuple) else part.to(device)
                    draws = Step(step_generator(config.seed, step, 1), config.batch, rows, torch.device(device), buckets.to(device), basis)
                    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.bf16):
                        terms = loss_function(cascade, part, draws, config, lpips)
                        loss = sum(weight * terms[k].mean() for k, weight in weights(config).items() if k in terms)
                    (loss / config.accumulate).backward()
                    found.append({"loss": loss.detach()} | {k: v.detach().float() for k, v in terms.items()})
                terms = gather(found, parameters.values(), processes)
                norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip)
                if not torch.isfinite(norm):
                    names = {photos.items[i][0] for i in photos.picks(config.batch, step_generator(config.seed, step, 0))}
                    raise InputError(
                        f"the loss or its gradient is not finite at step {step} (seed {config.seed}); lower lr, or look at its "
                        f"pictures: {', '.join(sorted(names))}"
                    )
                optimiser.step()
                if config.adaptive_weight:
                    update_buckets(buckets, terms["bucket"].long(), terms["error"])
                update_ema(ema, cascade, min(config.ema, (1 + step) / (10 + step)))
                row = {"step": step} | {k: v.mean().item() for k, v in terms.items() if k != "bucket"}
                row |= {"grad": norm.item(), "lr": lr, "time_s": round(time.monotonic() - began, 2)}
                log.write(json.dumps(row) + "\n")
                log.flush()
                if board:
                    for name in row.keys() - {"step", "time_s"}:
                        board.add_scalar(name, row[name], step)
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                done = step + 1
                if writes and (done % config.save_every == 0 or done == config.steps):
                    _save(last, cascade, optimiser, parameters, ema, buckets, config, frozen, done)
                if writes and (done % config.sample_every == 0 or done == config.steps):
                    write_preview(with_weights(cascade, ema), preview.to(device), folder / "samples" / f"{done:06d}.png", config.phase)
    finally:
        batches.close()
        if board:
            board.close()
        cascade.stage_b.recompute = False
        cascade.stage_b.__dict__.pop("step", None)  # the compiled one
    if writes:
        trained = with_weights(cascade, ema)
        if config.phase == "autoencoder":
            trained = calibrated(trained, preview=photos.crops(256, 64, step_generator(config.seed, 0, 8)).to(device))
        save_model(trained, folder / "model")
    wait_for_all(processes)
    return folder / "model"


def weights(config: TrainConfig) -> dict[str, float]:
    """Of the terms of a loss; the other terms are only logged."""
    terms = ("latent", "pixel", "lpips", "thumbnail", "spectrum")
    return {"epsilon": 1.0, "code": 1.0} | {term: getattr(config, f"{term}_weight") for term in terms}


def shares(config: TrainConfig, rank: int, processes: int) -> list[slice]:
    """Rows of the batch that process `rank` works on, one slice for each part."""
    size = config.batch // (processes * config.accumulate)
    first = rank * config.accumulate
    return [slice((first + i) * size, (first + i + 1) * size) for i in range(config.accumulate)]


def start_processes(device: str) -> tuple[int, int]:
    """(rank, number of processes), as torchrun and `accelerate launch` set them in the environment."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1 and not dist.is_initialized():
        if device.startswith("cuda"):
            torch.cuda.set_device(device)  # NCCL gathers objects through the current device
        hours = timedelta(hours=12)  # one process may fill a cache of latents while the others wait
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=hours)
    return (dist.get_rank(), processes) if processes > 1 else (0, 1)


def wait_for_all(processes: int) -> None:
    if processes > 1:
        dist.barrier()


def gather(found: list[dict[str, Tensor]], parameters, processes: int) -> dict[str, Tensor]:
    """Average gradients over processes; put the terms of all parts and processes together, in the batch's order."""
    terms = {k: torch.cat([part[k].reshape(-1).cpu() for part in found]) for k in found[0]}
    if processes > 1:
        for p in parameters:
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= processes
        everyone = [None] * processes
        dist.all_gather_object(everyone, terms)
        terms = {k: torch.cat([each[k] for each in everyone]) for k in terms}
    return terms


def make_optimiser(parameters: dict[str, Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    settings = {"lr": config.lr, "betas": (0.9, config.beta2), "weight_decay": config.weight_decay}
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters.values(), fused=True, **settings)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise InputError("optimiser adamw8bit needs bitsandbytes; pip install 'semcast[train]'") from None
    return AdamW8bit(parameters.values(), **settings)


def scalars(folder: Path):
    """A TensorBoard writer, or None where tensorboard is not installed; log.jsonl holds the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


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


def _save(last: Path, cascade, optimiser, parameters, ema, buckets, config, frozen, done: int) -> None:
    """Write a new folder, then swap: an interrupt leaves the old checkpoint or the new one, never half of each."""
    partial = last.with_name("last.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    moments = {}
    for name, p in parameters.items():
        state = {k: torch.as_tensor(v) for k, v in optimiser.state[p].items()}
        moments |= {f"{name}|{k}": v.clone() if k.startswith("qmap") else v for k, v in state.items()}  # parameters share a qmap
    learning = PHASES[config.phase][1]
    learnt = {k: v.clone() for k, v in cascade.state_dict().items() if k.split(".")[0] in learning}
    save_tensors(learnt, partial / "network.safetensors")
    save_tensors(ema, partial / "ema.safetensors")
    save_tensors(moments | {"buckets": buckets}, partial / "optimiser.safetensors")
    write_text(partial / "state.json", json.dumps({"step": done, "config": asdict(config), "frozen": frozen}) + "\n")
    old = last.with_name("last.old")
    shutil.rmtree(old, ignore_errors=True)
    if last.exists():
        last.rename(old)
    partial.rename(last)
    shutil.rmtree(old, ignore_errors=True)


def _load(last: Path, cascade, parameters, optimiser, ema, buckets, config, frozen) -> int:
    state = json.loads((last / "state.json").read_text())
    if changed := [k for k, v in asdict(config).items() if k not in FREE and state["config"].get(k) != v]:
        raise InputError(f"{last.parent} was run with other settings ({', '.join(changed)}); resume with the same ones")
    if changed := [name for name, value in frozen.items() if state["frozen"].get(name) != value]:
        raise InputError(f"{last.parent} was run with another {' and '.join(changed)}; resume with the same --init")
    cascade.load_state_dict(load_tensors(last / "network.safetensors"), strict=False)
    for key, value in load_tensors(last / "ema.safetensors").items():
        ema[key].copy_(value)
    moments = load_tensors(last / "optimiser.safetensors")
    buckets.copy_(moments.pop("buckets"))
    for name, p in parameters.items():
        keys = [k for k in moments if k.startswith(name + "|")]
        state_of_p = {k.rsplit("|", 1)[1]: moments[k].to(p.device) for k in keys}  # bitsandbytes counts steps in plain integers
        optimiser.state[p] = {k: v.item() if v.ndim == 0 and not v.is_floating_point() else v for k, v in state_of_p.items()}
    return state["step"]
