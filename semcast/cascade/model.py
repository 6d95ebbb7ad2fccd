"""A cascade: the three networks of one model, and the settings that say how they are used."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .diffusion import guide, network_time, scales, x0_and_eps
from .encoder import Encoder, EncoderConfig
from .stage_a import StageA, StageAConfig
from .stage_b import PATCH, StageB, StageBConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything but the weights. Saved as config.json beside them."""

    name: str
    licence: str
    prediction: str = "epsilon"  # what Stage B outputs: "epsilon", "v", or "x0" from an input scaled by a(t)
    noise_aware: bool = False  # MMSE scaling and the noise level as `sca`; the official networks are blind to both
    guidance: float = 1.0  # classifier-free guidance scale; 1 means one forward pass a step
    factor: float = 0.75  # encoder input side / image side
    steps: int = 10
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    stage_a: StageAConfig = field(default_factory=StageAConfig)
    stage_b: StageBConfig = field(default_factory=StageBConfig)


class Cascade(nn.Module):
    """Encoder, Stage B and Stage A of one model."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.stage_a = StageA(config.stage_a)
        self.stage_b = StageB(config.stage_b)

    def prepare(self, code: Tensor, noise: Tensor, latent_size: tuple[int, int], guided: bool = True) -> "Condition":
        """What Stage B needs to know of a reception, computed once for all steps.

        Args:
            code: [B, 16, hz, wz], from `receiver.condition`.
            noise: [B, 16, hz, wz] in [0, 1], likewise; ignored unless the model is noise-aware. Its mean is told as `sca`, the
                rest as a map, so that where all symbols are equally noisy (AWGN) the map is zero.
            latent_size: of the latent to be sampled.
            guided: as the model's `guidance` says: with a scale other than 1 a second pass a step sees a code of zeros.
        """
        sca = noise.mean(dim=(1, 2, 3)) if self.config.noise_aware else None
        spread = noise - sca[:, None, None, None] if self.config.noise_aware else None
        size = tuple(side // PATCH for side in latent_size)
        mapped = self.stage_b.map_code(code, spread, size)
        unguided = self.stage_b.map_code(code * 0, spread, size) if guided and self.config.guidance != 1.0 else None
        return Condition(mapped, unguided, sca)

    def denoise(self, x: Tensor, t: Tensor, condition: "Condition") -> tuple[Tensor, Tensor]:
        """One denoiser evaluation: x [B, 4, h, w], t [B] -> (x0, eps) in float32.

        A network that predicts x0 is shown a(t) x, so that what is mostly noise weighs little: at t = 1 it works as a
        plain decoder of the code. (Shown x itself, ours had learnt no colour after 250 steps.)
        """
        r = network_time(t)
        shown = (x * scales(t)[0] if self.config.prediction == "x0" else x).to(self.stage_b.clf[1].weight.dtype)
        output = self.stage_b.step(shown, r, condition.mapped, condition.sca).float()
        if condition.unguided is not None:
            unguided = self.stage_b.step(shown, r, condition.unguided, condition.sca).float()
            output = guide(output, unguided, self.config.guidance)
        return x0_and_eps(output, x, t, self.config.prediction)


class Condition(NamedTuple):
    """Of Stage B; see `Cascade.prepare`."""

    mapped: Tensor  # [B, h / 2, w / 2, hidden]
    unguided: Tensor | None
    sca: Tensor | None  # [B]


@contextmanager
def visiting(network: nn.Module, device: torch.device):
    """Let a network that waits in main memory run on the device of its input, then free it there (`--low-memory`).

    Does nothing for a network that lives on a device already.
    """
    if device.type == "cpu" or next(network.parameters()).device.type != "cpu":
        yield
        return
    kept = network.state_dict()  # nothing is copied back
    with torch.inference_mode(False):  # a tensor made in inference mode could not go into a parameter
        network.to(device)
    try:
        yield
    finally:
        with torch.inference_mode(False):
            network.load_state_dict(kept, assign=True)


def small_config() -> ModelConfig:
    """The default model: 30 MiB of bf16 weights, 512x512 in about a second on two CPU cores."""
    return ModelConfig(
        name="small",
        licence="research use only (trained on research-only pictures)",
        prediction="x0",
        noise_aware=True,
        encoder=EncoderConfig(
            stages=(
                ("fused", 1, 3, 1, 16, 16, 1),
                ("fused", 4, 3, 2, 16, 32, 2),
                ("fused", 4, 3, 2, 32, 48, 2),
                ("mbconv", 4, 3, 2, 48, 96, 3),
                ("mbconv", 4, 3, 1, 96, 112, 4),
                ("mbconv", 6, 3, 2, 112, 192, 5),
            ),
            last_channels=640,
        ),
        stage_a=StageAConfig(hidden=(32, 96), bottleneck_blocks=4, codebook_size=0, scale_factor=1.0, replicate_edges=True),
        stage_b=StageBConfig(
            hidden=(64, 128, 256, 320),
            heads=(0, 0, 0, 5),
            blocks=("CT", "CT", "CT", "CTA"),
            down_blocks=(1, 2, 3, 2),
            up_blocks=(1, 2, 3, 2),
            up_repeats=(1, 1, 1, 1),
            cond_channels=128,
            text_channels=64,
            dropout=(0.0, 0.0, 0.0, 0.0),
            noise_map=True,
            code_unfold=6,
        ),
    )
