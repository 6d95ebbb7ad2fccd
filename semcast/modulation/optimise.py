"""A better Z for one picture: gradient descent at the sender, through the channel and the receiver's networks.

The encoder makes Z in one pass. A sender with time knows more: it has the picture, the receiver's networks and the SNR,
so it can try what will be painted and move Z until that is nearer to the picture. The receiver is as ever.

    Z -> modulate -> AWGN, fresh noise in every step -> demodulate -> Stage B -> Stage A -> loss -> Adam

The loss needs nothing but the model. Its networks need torch, which gives the gradients.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from ..cascade.denoiser import denoise, prepare
from ..cascade.device import visiting
from ..cascade.diffusion import sample
from ..cascade.model import Cascade
from ..channels.noise import awgn
from ..header import Header
from ..randomness import draw_noise, seeded
from .analog import demodulate, modulate

VERSION = 1  # of what these steps make of a picture; the bench measures again when it changes
LEARNING_RATE = 0.03  # of Adam at the start; it falls to 0 as a cosine
STAGES = (1, 2, 3, 5)  # of the encoder, whose maps are compared; strides 2, 4, 8 and 16
FEATURE_WEIGHT = 1.0
BLOCKS = (1, 4, 16)  # pixels; sides of the blocks whose mean colours are compared
CHECKS = 4  # how many times the present Z is compared with the best
DRAWS = 3  # of noise, for these comparisons


def optimise(
    z: np.ndarray,
    image: np.ndarray,
    header: Header,
    cascade: Cascade,
    snr_db: float,
    steps: int,
    progress: Callable[[int], None] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Improve the Z of one picture for AWGN of an SNR.

    The result is the best Z of those that were compared, by the loss under noise that no step has seen. The start is
    among them, so by this measure the result is never worse.

    Args:
        z: [1, 16, hz, wz], as the encoder made it.
        image: the picture [1, 3, H, W] in [0, 1].
        header: its header, for the size of what is painted.
        snr_db: Es/N0, which the receiver will be told.
        steps: of Adam, 1 or more.
        progress: called with the number of finished steps.
        seed: of all noise. The same arguments give the same Z.
    Returns:
        [1, 16, hz, wz], float32.
    """
    encoder, stage_b, stage_a = cascade.encoder, cascade.stage_b, cascade.stage_a
    on_device = lambda array: torch.from_numpy(np.array(array, np.float32)).to(cascade.device)
    with (
        torch.enable_grad(),
        visiting(encoder, cascade.device),
        visiting(stage_b, cascade.device),
        visiting(stage_a, cascade.device),
    ):
        start, truth, generator = on_device(z), on_device(image), seeded("optimise", seed)
        with torch.no_grad():
            true_maps = encoder.maps(truth, STAGES)

        def loss(z: Tensor, generator: Generator) -> Tensor:
            painted = paint(cascade, z, header, snr_db, generator)
            return distance(painted, truth) + FEATURE_WEIGHT * map_distance(encoder.maps(painted, STAGES), true_maps)

        @torch.no_grad()
        def check(z: Tensor) -> float:
            return sum(loss(z, seeded("optimise check", seed, draw)).item() for draw in range(DRAWS)) / DRAWS

        best, least = start, check(start)
        moving = start.clone().requires_grad_()
        adam = torch.optim.Adam([moving], lr=LEARNING_RATE)
        for step in range(steps):
            adam.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
            adam.zero_grad()
            loss(moving, generator).backward()
            adam.step()
            if (step + 1) * CHECKS // steps > step * CHECKS // steps and (found := check(moving)) < least:
                best, least = moving.detach().clone(), found
            if progress:
                progress(step + 1)
    return best.cpu().numpy()


def paint(cascade: Cascade, z: Tensor, header: Header, snr_db: float, generator: Generator) -> Tensor:
    """Z [1, 16, hz, wz] -> what the receiver paints of it after AWGN, [1, 3, H, W], not clamped; as in `receiver`."""
    config, (height, width) = cascade.config, header.padded
    x, gain = modulate(z)
    received = awgn(x, snr_db, [generator])
    estimate, noise = demodulate(received, gain, header.latent_shape, config.noise_aware)
    size = height // 4, width // 4
    start = draw_noise(z.new_empty(1, config.stage_a.latent_channels, *size), [generator])
    condition = prepare(cascade, estimate, noise, size)
    latent = sample(lambda x, t: denoise(cascade, x, t, condition), start, config.steps, [generator])
    image = cascade.stage_a.decode(latent.to(cascade.stage_a.dtype)).float()
    return image[..., : header.height, : header.width]


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of pixels and of the mean colours of larger blocks, averaged over the sizes of BLOCKS."""
    difference = a - b
    sizes = [F.avg_pool2d(difference, side).abs().mean() for side in BLOCKS]
    return sum(sizes[1:], start=sizes[0]) / len(sizes)


def map_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean squared distance of feature maps of unit length, as in LPIPS, averaged over the maps."""
    layers = [(x - y).square().sum(dim=1).mean() for x, y in zip(a, b)]
    return sum(layers[1:], start=layers[0]) / len(layers)
