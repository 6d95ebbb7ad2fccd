"""A cascade: the three networks of one model and the settings for their use."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .diffusion import guide, network_time, scales, x0_and_eps
from .encoder import Encoder
from .stage_a import StageA
from .stage_b import PATCH, StageB


class Cascade(nn.Module):
    """Encoder, Stage B and Stage A of one model."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.stage_a = StageA(config.stage_a)
        self.stage_b = StageB(config.stage_b)
        self.device = torch.device("cpu")  # on which the networks run

    def place(self, device: str, low_memory: bool = False) -> "Cascade":
        """Run on `device` from now on. With low_memory each network stays in main memory except while it runs."""
        self.device = torch.device(device)
        return self if low_memory else self.to(device)

    def prepare(self, z: Tensor, noise: Tensor, latent_size: Sequence[int], guided: bool = True) -> "Condition":
        """Compute what Stage B needs to know about a reception, once for all steps.

        Args:
            z: [B, 16, hz, wz], the estimate from `modulation.analog.demodulate`.
            noise: [B, 16, hz, wz] in [0, 1], from the same; ignored unless the model is noise-aware. The network gets
                its mean as `sca` and the difference from the mean as a map, which is zero where all symbols are equally
                noisy (AWGN).
            latent_size: (h, w) of the latent to be sampled.
            guided: whether to prepare the second pass per step, with a Z of zeros, that a guidance scale other than 1
                needs.
        """
        sca = noise.mean(dim=(1, 2, 3)) if self.config.noise_aware else None
        spread = noise - sca[:, None, None, None] if sca is not None else None
        height, width = latent_size
        size = height // PATCH, width // PATCH
        mapped = self.stage_b.map_z(z, spread, size)
        unguided = self.stage_b.map_z(z * 0, spread, size) if guided and self.config.guidance != 1.0 else None
        return Condition(mapped, unguided, sca)

    def denoise(self, x: Tensor, t: Tensor, condition: "Condition") -> tuple[Tensor, Tensor]:
        """Evaluate the denoiser once: x [B, 4, h, w], t [B] -> (x0, eps) in float32.

        A network that predicts x0 is shown a(t) x, so that an x of mostly noise has little weight; at t = 1 it is
        a plain decoder of Z. Shown x itself, our network had learnt no colours after 250 steps.
        """
        r = network_time(t)
        shown = (x * scales(t)[0] if self.config.prediction == "x0" else x).to(self.stage_b.dtype)
        output = self.stage_b.step(shown, r, condition.mapped, condition.sca).float()
        if condition.unguided is not None:
            unguided = self.stage_b.step(shown, r, condition.unguided, condition.sca).float()
            output = guide(output, unguided, self.config.guidance)
        return x0_and_eps(output, x, t, self.config.prediction)


class Condition(NamedTuple):
    """The condition for Stage B, made by `Cascade.prepare`."""

    mapped: Tensor  # [B, h / 2, w / 2, hidden], from `StageB.map_z`
    unguided: Tensor | None  # the same for a Z of zeros; None without guidance
    sca: Tensor | None  # [B], mean noise; None for a model that is not noise-aware


def new_cascade(config: ModelConfig, seed: int) -> Cascade:
    """A cascade with randomly initialised weights; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return Cascade(config)
