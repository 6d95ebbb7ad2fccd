"""A cascade: the networks of one model in torch, for training and for the torch engine."""

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .encoder import Encoder
from .enhancement import Enhancement
from .restorer import Restorer
from .stage_a import StageA
from .stage_b import StageB


class Cascade(nn.Module):
    """Encoder, Stage B and Stage A of one model, and enhancement network and restorer if it has them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.stage_a = StageA(config.stage_a)
        self.stage_b = StageB(config.stage_b)
        if config.enhancement.exists:
            self.enhancement = Enhancement(config.enhancement)
        if config.restorer.exists:
            self.restorer = Restorer(config.restorer)
        self.device = torch.device("cpu")  # on which the networks run

    def place(self, device: str, low_memory: bool = False) -> "Cascade":
        """Run on `device` from now on. With low_memory each network stays in main memory except while it runs."""
        self.device = torch.device(device)
        return self if low_memory else self.to(device)

    # What `denoiser.prepare` and `denoiser.denoise` need.

    def map_z(self, z: Tensor, noise: Tensor | None, size: tuple[int, int]) -> Tensor:
        return self.stage_b.map_z(z, noise, size)

    def step(self, x: Tensor, r: Tensor, mapped: Tensor, sca: Tensor | None) -> Tensor:
        return self.stage_b.step(x.to(self.stage_b.dtype), r, mapped, sca).float()


def new_cascade(config: ModelConfig, seed: int) -> Cascade:
    """A cascade with randomly initialised weights; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return Cascade(config)
