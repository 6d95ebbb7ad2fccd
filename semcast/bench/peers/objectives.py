"""What each network of the rivals minimises, as a function of (network, step) for `training.learn`."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from ...cascade.device import has_bf16
from ...training.data import step_generator
from .autoencoder import Autoencoder
from .diffusion import LOG_ALPHA_BAR, STEPS
from .latents import Latents
from .unet import UNet

SNR_DB = (1.0, 20.0)  # Es/N0, drawn evenly for each picture
SIZE = 1e-3  # weight of the clean latent's mean square, which would otherwise grow without end
UNCONDITIONAL = 0.1  # share of pictures whose maps are hidden, for guidance

Loss = Callable[[nn.Module, int], Tensor]
DATA, NOISE = 0, 1  # purposes of a step's generators


def autoencoder_loss(data: Callable[[Generator], Latents], seed: int, device: str) -> Loss:
    """The squared error of Stage A's latent. Clean: and the own latent's size. Through the channel: over AWGN."""
    bf16 = has_bf16(device)

    def loss(network: nn.Module, step: int) -> Tensor:
        assert isinstance(network, Autoencoder)
        y, generator = data(step_generator(seed, step, DATA))["z"].to(device), step_generator(seed, step, NOISE)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
            z = network.encode(y)
            found = network.decode(receive(z, generator)[0] if network.config.through_channel else z)
        error = F.mse_loss(found, y)
        return error if network.config.through_channel else error + SIZE * z.square().mean()

    return loss


def denoiser_loss(data: Callable[[Generator], Latents], seed: int, device: str) -> Loss:
    """The squared error of the noise at an even t. CASC is told a reception of the latent, GESCO most of the maps."""
    abar = torch.from_numpy(np.exp(LOG_ALPHA_BAR)).float().to(device)  # [1001]
    bf16 = has_bf16(device)

    def loss(network: nn.Module, step: int) -> Tensor:
        assert isinstance(network, UNet)
        batch = {name: values.to(device) for name, values in data(step_generator(seed, step, DATA)).items()}
        z, generator = batch["z"], step_generator(seed, step, NOISE)
        t = torch.from_numpy(generator.integers(1, STEPS + 1, len(z))).to(device)
        eps, told = noise(z, generator), {}
        if network.config.received:
            told["received"], told["noise_var"] = receive(z, generator)
        if network.config.maps:
            shown = torch.from_numpy(generator.random(len(z)) >= UNCONDITIONAL).to(device)
            told["maps"] = batch["maps"] * shown[:, None, None, None]
        a, b = (part.sqrt()[:, None, None, None] for part in (abar[t], 1 - abar[t]))
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
            found = network(a * z + b * eps, t, **told)
        return F.mse_loss(found, eps)

    return loss


def receive(z: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """AWGN of a random SNR on latents of variance 1 -> (MMSE estimates, noise_var [B])."""
    low, high = SNR_DB
    noise_var = torch.from_numpy(10 ** (-generator.uniform(low, high, len(z)) / 10)).float().to(z.device)
    each = noise_var[:, None, None, None]
    return (z + each.sqrt() * noise(z, generator)) / (1 + each), noise_var


def noise(like: Tensor, generator: Generator) -> Tensor:
    return torch.from_numpy(generator.standard_normal(like.shape, np.float32)).to(like.device)


@torch.no_grad()
def standardise(network: Autoencoder, batches: Iterable[Tensor], device: str) -> None:
    """Set mean and deviation of the clean latent's channels, over some batches of Stage A's latents."""
    z = torch.cat([network.encode(y.to(device)).float() for y in batches])
    network.mean.copy_(z.mean(dim=(0, 2, 3)))
    network.std.copy_(z.std(dim=(0, 2, 3)).clamp_min(1e-6))
