"""The engine for GPUs, the official networks and processors that compute in bf16."""

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from .checkpoint import arrays
from .device import visiting
from .fingerprint import encoder_id
from .model import Cascade
from .tiles import enhanced_in_tiles, log_rate


class TorchEngine:
    """See `engine.Engine`."""

    def __init__(self, cascade: Cascade):
        self.cascade, self.config = cascade, cascade.config
        above = arrays(cascade.enhancement) if self.config.enhancement.exists else None
        self.encoder_id = encoder_id(arrays(cascade.encoder), above)

    def load(self, layers: bool = True) -> None:
        """Nothing is left to load."""

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> np.ndarray:
        with visiting(self.cascade.encoder, self.cascade.device):
            return self.cascade.encoder(self.tensor(image)).cpu().numpy()

    def sampling(self) -> AbstractContextManager:
        return visiting(self.cascade.stage_b, self.cascade.device)

    @torch.inference_mode()
    def map_z(self, z: np.ndarray, noise: np.ndarray | None, size: tuple[int, int]) -> Tensor:
        return self.cascade.map_z(self.tensor(z), None if noise is None else self.tensor(noise), size)

    @torch.inference_mode()
    def step(self, x: np.ndarray, r: np.ndarray, mapped: Tensor, sca: np.ndarray | None) -> np.ndarray:
        told = None if sca is None else self.tensor(sca)
        return self.cascade.step(self.tensor(x), self.tensor(r), mapped, told).cpu().numpy()

    @torch.inference_mode()
    def decode(self, latent: np.ndarray) -> np.ndarray:
        stage_a = self.cascade.stage_a
        with visiting(stage_a, self.cascade.device):
            return stage_a.decode(self.tensor(latent).to(stage_a.dtype)).float().cpu().numpy()

    @torch.inference_mode()
    def latent(self, image: np.ndarray) -> np.ndarray:
        """Stage A's latent [B, 4, H/4, W/4] of an image [B, 3, H, W] in [0, 1]; the link does not need it."""
        stage_a = self.cascade.stage_a
        with visiting(stage_a, self.cascade.device):
            return stage_a.encode(self.tensor(image).to(stage_a.dtype)).float().cpu().numpy()

    @torch.inference_mode()
    def encode_layers(self, image: np.ndarray) -> list[np.ndarray]:
        enhancement = self.cascade.enhancement
        with visiting(enhancement, self.cascade.device):
            layers = enhancement.encode(self.tensor(image).to(enhancement.dtype))
        return [layer.float().cpu().numpy() for layer in layers]

    @torch.inference_mode()
    def enhance(self, base: np.ndarray, known: list[np.ndarray]) -> np.ndarray:
        enhancement = self.cascade.enhancement
        run = lambda *parts: (
            enhancement.decode(*(self.tensor(p).to(enhancement.dtype) for p in parts)).float().cpu().numpy()
        )
        with visiting(enhancement, self.cascade.device):
            return enhanced_in_tiles(run, self.config.enhancement, [base, *known], 1, 3)

    @torch.inference_mode()
    def restore(self, base: np.ndarray, draft: np.ndarray, bits_per_pixel: float) -> np.ndarray:
        restorer, rate = self.cascade.restorer, log_rate(bits_per_pixel)
        run = lambda *parts: (
            restorer(*(self.tensor(p).to(restorer.dtype) for p in (*parts, rate))).float().cpu().numpy()
        )
        with visiting(restorer, self.cascade.device):
            return enhanced_in_tiles(run, self.config.restorer, [base, draft], 1, 3)

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.cascade.device)
