"""Receiver: what the antenna saw and the header -> condition -> Stage B -> Stage A -> picture."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from .cascade.diffusion import draw_noise, sample
from .cascade.model import Cascade, visiting
from .channel import Received, equalise
from .transmitter import Header, demodulate


def receive(
    received: Received,
    header: Header,
    gain: Tensor | float,
    cascade: Cascade,
    generators: Sequence[Generator],
    steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Receptions of pictures of one size -> images [B, 3, H, W] in [0, 1].

    Args:
        received: y, h, noise_var with B rows.
        header: side information, the same for all rows but for the gain and the seed,
        gain: which are given apart: a number or [B, 1], and
        generators: one a row, for the diffusion noise.
        steps: of the sampler, default the model's.
    """
    height, width = header.padded
    code, noise = condition(received, gain, header.code_shape, cascade.config.noise_aware)
    start = draw_noise(code.new_empty(len(code), cascade.config.stage_a.latent_channels, height // 4, width // 4), generators)
    with visiting(cascade.stage_b, code.device):
        prepared = cascade.prepare(code, noise, start.shape[-2:])
        denoiser = lambda x, t: cascade.denoise(x, t, prepared)  # noqa: E731
        latent = sample(denoiser, start, steps or cascade.config.steps, generators, progress=progress)
    with visiting(cascade.stage_a, code.device):
        image = cascade.stage_a.decode(latent.to(cascade.stage_a.out_block[0].weight.dtype)).float()
    return image[..., : header.height, : header.width].clamp(0, 1)


def condition(received: Received, gain: Tensor | float, shape: tuple[int, int, int], noise_aware: bool) -> tuple[Tensor, Tensor]:
    """Equalise -> (code [B, 16, hz, wz], noise [B, 16, hz, wz] in [0, 1]).

    Noise-aware: the MMSE estimate, without knowledge of Z. Blind, as in the paper: divided by the channel alone.
    The noise of a number is noise / (noise + signal) of its symbol after equalising: 0 clean, 1 nothing but noise (erased).
    """
    _, h, noise_var = received
    estimate = equalise(received, noise_aware)
    # an erased symbol has infinite noise
    level = torch.where(noise_var.isinf(), 1.0, noise_var / (h.abs().square() + noise_var).clamp_min(1e-12))
    noise = level.expand(estimate.shape).repeat(1, 2).view(-1, *shape)  # both parts of a symbol share it
    return demodulate(estimate, torch.as_tensor(gain, device=estimate.device), shape), noise
