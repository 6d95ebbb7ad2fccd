"""The settings of a training run and the presets of `semcast train`."""

import math
from dataclasses import dataclass, fields, replace

from .errors import InputError
from .losses import MARGIN, PHASES

WINDOW_MIN = 32  # pixels: smaller ones vanish in VGG's pooling
SHARES = ("lr_end", "condition_drop", "from_noise", "batch_norm_until")
TERMS = ("latent", "pixel", "lpips", "spectrum", "grid", "adversarial", "thumbnail")  # of the losses; each has a weight
NOT_NEGATIVE = (*(f"{term}_weight" for term in TERMS), "latent_noise", "warmup")


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
    bf16: bool = True  # autocast, where the device has it
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
    grid_weight: float = 0.0  # what repeats every 8 pixels in decoded windows
    window: int = 128  # pixels of the decoded window; 0: no decoding
    adversarial_weight: float = 0.0  # decoded windows that a critic takes for true ones
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
            ("fading", self.fading >= 0 and self.erasures >= 0 and self.fading + self.erasures <= 1, "shares, with erasures at most 1"),
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
        if bad := [f"{name} = {getattr(self, name)!r}, allowed: {allowed}" for name, fine, allowed in rules if not fine]:
            raise InputError("bad training settings: " + "; ".join(bad))

    def windows(self) -> set[int]:
        """Sides of the decoded window that are possible."""
        return {*range(WINDOW_MIN, self.crop - 4 * MARGIN + 1, 4)} | ({0} if self.phase != "autoencoder" else set())


def with_settings(config: TrainConfig, texts: list[str]) -> TrainConfig:
    """The same with other values, as `--set` takes them: "steps=500"; "factor=1" sets factor_min and factor_max.

    Raises:
        InputError: a name or value is wrong.
    """
    kinds = {f.name: f.type for f in fields(config)}
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        names = ("factor_min", "factor_max") if name == "factor" else (name,)
        if not equals or not kinds.keys() >= {*names}:
            raise InputError(f"--set {text}: write NAME=VALUE with a name out of {', '.join(kinds)}")
        kind = kinds[names[0]]
        try:
            settings |= dict.fromkeys(names, {"true": True, "false": False}[value.lower()] if kind is bool else kind(value))
        except (ValueError, KeyError):
            raise InputError(f"--set {text}: {value!r} is no {kind.__name__}") from None
    return replace(config, **settings)


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
    "scsic-512": SCSIC,
    "scsic-1024": replace(SCSIC, crop=1024),
}
