"""The settings of a training run, its phases, and the presets of `semcast train`. Imports no torch."""

import math
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

from ..errors import InputError

MARGIN = 4  # latent pixels decoded around a window and cut off at a random offset, against grid artefacts
WINDOW_MIN = 32  # pixels; smaller windows vanish in VGG's pooling
SHARES = ("lr_end", "condition_drop", "from_noise", "batch_norm_until")
TERMS = ("latent", "pixel", "lpips", "spectrum", "grid", "adversarial", "thumbnail")  # loss terms with a weight
NOT_NEGATIVE = (*(f"{term}_weight" for term in TERMS), "latent_noise", "warmup")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The properties of a training phase; its loss is `phases.LOSSES[name]`."""

    learns: tuple[str, ...]  # the networks that are trained
    needs_lpips: bool = True
    starts_new: bool = False  # may start from random weights
    needs_window: bool = False  # has no loss without a decoded window
    fits_linear: bool = False  # needs the basis of the best linear Z
    cacheable: bool = False  # may read Z and latents from disk
    unguided: bool = False  # the trained model samples without guidance; it must not predict epsilon
    autoencodes: bool = False  # trains without a link, and scales the latent to unit variance at the end


PHASES = {
    "autoencoder": Phase(learns=("stage_a",), starts_new=True, needs_window=True, autoencodes=True),
    "encoder": Phase(learns=("encoder",), needs_lpips=False, starts_new=True, fits_linear=True),
    "decode": Phase(learns=("stage_b",)),
    "joint": Phase(learns=("encoder", "stage_b")),
    "fewstep": Phase(learns=("stage_b",), unguided=True),
    "denoise": Phase(learns=("stage_b",), needs_lpips=False, cacheable=True),
    "enhancement": Phase(learns=("enhancement",)),
    "restorer": Phase(learns=("restorer",)),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a run: flat scalars, each of which `--set name=value` can change."""

    phase: str
    steps: int
    lr: float
    batch: int = 8
    crop: int = 256  # pixels, a multiple of 64
    seed: int = 0
    warmup: int = 100  # steps of linear rise, followed by a cosine down to lr_end * lr
    lr_end: float = 0.02
    weight_decay: float = 0.01
    beta2: float = 0.99  # for AdamW, with beta1 = 0.9
    optimiser: str = "adamw"  # or "adamw8bit" of bitsandbytes, with moments in 8 bits
    accumulate: int = 1  # number of parts into which a batch is split to save memory
    recompute: bool = False  # gradient checkpointing in Stage B
    clip: float = 1.0  # maximum norm of the gradient
    ema: float = 0.999  # decay of the averaged weights; 0: no averaging, the last weights are used
    bf16: bool = True  # autocast where the device supports it
    compile: bool = False
    snr_min: float = -2.0  # dB, drawn uniformly for each picture
    snr_max: float = 22.0
    channel_noise: bool = True  # False: ablation, a receiver trained without noise
    fading: float = 0.0  # share of pictures with independent Rayleigh fading of every symbol
    erasures: float = 0.0  # share of pictures that lose up to half of their symbols
    factor_min: float = 0.75  # encoder input side / picture side, drawn once per step
    factor_max: float = 0.75
    batch_norm_until: float = 0.2  # share of steps with batch statistics in the encoder; they remove brightness from Z
    prediction: str = ""  # new output of Stage B: "epsilon", "x0" or "v"; empty: unchanged
    adaptive_weight: bool = False  # denoise: weight each diffusion time by 1 over its running loss
    pyramid_noise: bool = False  # denoise: add coarser fields to the diffusion noise
    cache_crops: int = 1  # denoise with a cache: number of fixed crops per picture
    condition_drop: float = 0.0  # share of pictures whose condition is set to zero, after the noise
    from_noise: float = 0.7  # share of pictures at t = 1; the others have a uniform t
    latent_weight: float = 1.0  # L1 between latents, summed over five scales
    pixel_weight: float = 1.0  # L1 between decoded windows
    lpips_weight: float = 1.0  # LPIPS-VGG between decoded windows
    spectrum_weight: float = 0.0  # power of decoded windows beyond that of the true ones, per frequency
    grid_weight: float = 0.0  # patterns that repeat every 16 pixels in decoded windows
    window: int = 128  # pixels of the decoded window; 0: no decoding
    adversarial_weight: float = 0.0  # how true decoded windows look to a critic
    thumbnail_weight: float = 0.0  # pixel_weight L1 + LPIPS-VGG of the whole picture at a quarter of its side
    latent_noise: float = 0.1  # autoencoder: noise on the latent, relative to its standard deviation
    save_every: int = 200
    sample_every: int = 500

    def __post_init__(self):
        if self.phase not in PHASES:
            raise InputError(f"bad training settings: phase = {self.phase!r}, allowed: {' or '.join(PHASES)}")
        rules = [
            ("steps", self.steps >= 1, "1 or more"),
            ("batch", self.batch >= 1, "1 or more"),
            ("crop", self.crop >= 64 and self.crop % 64 == 0, "a multiple of 64"),
            (
                "window",
                self.window in self.windows(),
                f"0 or a multiple of 4 from {WINDOW_MIN} to crop - {4 * MARGIN}; not 0 for autoencoder",
            ),
            ("thumbnail_weight", not self.thumbnail_weight or self.crop >= 128, "0 for crops below 128 pixels"),
            ("lr", 0 < self.lr < 1, "between 0 and 1"),
            ("accumulate", self.accumulate >= 1, "1 or more"),
            ("optimiser", self.optimiser in ("adamw", "adamw8bit"), "adamw or adamw8bit"),
            ("prediction", self.prediction in ("", "epsilon", "x0", "v"), "epsilon, x0 or v"),
            ("cache_crops", 1 <= self.cache_crops <= 200, "1 to 200"),
            ("snr_min", -30 <= self.snr_min <= self.snr_max <= 60, "-30 <= snr_min <= snr_max <= 60"),
            (
                "fading",
                self.fading >= 0 and self.erasures >= 0 and self.fading + self.erasures <= 1,
                "shares, with erasures at most 1",
            ),
            ("factor_min", 0.5 <= self.factor_min <= self.factor_max <= 1, "0.5 <= factor_min <= factor_max <= 1"),
            ("ema", 0 <= self.ema < 1, "0 to below 1"),
            ("beta2", 0 <= self.beta2 < 1, "0 to below 1"),
            ("weight_decay", 0 <= self.weight_decay < 1, "0 to below 1"),
            ("clip", self.clip > 0, "above 0"),
            ("seed", 0 <= self.seed < 2**32, "0 to 2^32 - 1"),
            *((name, 0 <= getattr(self, name) <= 1, "0 to 1") for name in SHARES),
            *((name, 0 <= getattr(self, name) < math.inf, "0 or more") for name in NOT_NEGATIVE),
            ("save_every", self.save_every >= 1, "1 or more"),
            ("sample_every", self.sample_every >= 1, "1 or more"),
        ]
        if bad := [
            f"{name} = {getattr(self, name)!r}, allowed: {allowed}" for name, fine, allowed in rules if not fine
        ]:
            raise InputError("bad training settings: " + "; ".join(bad))

    def windows(self) -> set[int]:
        """Allowed sides of the decoded window."""
        return {*range(WINDOW_MIN, self.crop - 4 * MARGIN + 1, 4)} | (set() if PHASES[self.phase].needs_window else {0})


def with_settings(config: TrainConfig, texts: list[str]) -> TrainConfig:
    """Return a copy with the values of `--set`, such as "steps=500"; "factor=1" sets factor_min and factor_max.

    Raises:
        InputError: a name or a value is wrong.
    """
    kinds: dict[str, type] = get_type_hints(TrainConfig)
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        names = ("factor_min", "factor_max") if name == "factor" else (name,)
        if not equals or not kinds.keys() >= {*names}:
            raise InputError(f"--set {text}: write NAME=VALUE, where NAME is one of {', '.join(kinds)}")
        kind = kinds[names[0]]
        try:
            parsed = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise InputError(f"--set {text}: {value!r} is not a valid {kind.__name__}") from None
        settings |= dict.fromkeys(names, parsed)
    return replace(config, **settings)


SCSIC = TrainConfig(  # arXiv 2507.17416, section 4; the rest as in Stability-AI/StableCascade, train/train_b.py
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
PRESETS = {  # the best settings so far; LOG.md has the experiments behind them
    "autoencoder": TrainConfig(phase="autoencoder", steps=1300, lr=2e-3, crop=128, window=96, lpips_weight=0.5),
    "encoder": TrainConfig(
        phase="encoder", steps=600, lr=2e-3, batch=16, window=0, warmup=20, lr_end=0.05, batch_norm_until=0.5, ema=0.98
    ),
    "joint": JOINT,
    "decode": replace(JOINT, phase="decode"),
    "fewstep": TrainConfig(
        phase="fewstep",
        steps=600,
        lr=6e-4,
        window=96,
        pixel_weight=3.0,
        thumbnail_weight=0.5,
        latent_weight=0.3,
        spectrum_weight=0.1,
        grid_weight=40.0,
        adversarial_weight=0.04,
    ),
    "enhancement": TrainConfig(
        phase="enhancement",
        steps=4000,
        lr=1e-3,
        batch=4,
        crop=128,
        window=88,
        pixel_weight=5.0,
        weight_decay=0.0,
        ema=0.998,
        snr_min=-3.0,
        snr_max=21.0,
        fading=0.15,
        erasures=0.15,
    ),
    "restorer": TrainConfig(
        phase="restorer",
        steps=3000,
        lr=2e-3,
        batch=6,
        crop=128,
        window=96,
        pixel_weight=5.0,
        weight_decay=0.0,
        ema=0.998,
        snr_min=-2.0,
        snr_max=22.0,
    ),
    "scsic-512": SCSIC,
    "scsic-1024": replace(SCSIC, crop=1024),
}
