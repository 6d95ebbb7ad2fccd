"""Receiver: what is known of Z -> Stage B -> Stage A -> picture."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from .cascade.config import ModelConfig
from .cascade.diffusion import sample
from .cascade.model import Cascade
from .channels.base import Received
from .device import visiting
from .errors import InputError
from .header import Header, Transmission
from .randomness import draw_noise


class Reconstruction(NamedTuple):
    """One picture after the whole link, and what it took."""

    image: Tensor  # [1, 3, H, W] in [0, 1]; of a lost picture, its mean colour
    lost: bool  # digital only
    sent: Transmission | None  # None where the channel can carry no packet
    received: Received | None
    encode_ms: float  # picture -> symbols
    decode_ms: float  # received symbols -> picture

    @property
    def payload_uses(self) -> int:
        """Complex symbols sent, without a channel's overhead."""
        return self.sent.header.channel_uses if self.sent else 0


@torch.inference_mode()
def receive(
    z: Tensor,
    noise: Tensor,
    header: Header,
    cascade: Cascade,
    generators: Sequence[Generator],
    steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """What a modem made of receptions -> images [B, 3, H, W] in [0, 1].

    Args:
        z, noise: [B, 16, hz, wz], from `demodulate`.
        header: sides and factor of the pictures, the same for all rows.
        generators: one a row, for the diffusion noise.
        steps: of the sampler, default the model's.
        progress: called with the number of finished steps.
    """
    z, noise = z.to(cascade.device), noise.to(cascade.device)
    height, width = header.padded
    start = draw_noise(z.new_empty(len(z), cascade.config.stage_a.latent_channels, height // 4, width // 4), generators)
    with visiting(cascade.stage_b, z.device):
        prepared = cascade.prepare(z, noise, (height // 4, width // 4))
        denoiser = lambda x, t: cascade.denoise(x, t, prepared)
        latent = sample(denoiser, start, steps or cascade.config.steps, generators, progress=progress)
    with visiting(cascade.stage_a, z.device):
        image = cascade.stage_a.decode(latent.to(next(cascade.stage_a.parameters()).dtype)).float()
    return image[..., : header.height, : header.width].clamp(0, 1)


def check_encoder(header: Header, encoder_id: int, config: ModelConfig) -> None:
    """Refuse what another encoder sent, unless the model says that it understands that one too."""
    if header.encoder_id != encoder_id and f"{header.encoder_id:04x}" not in config.understands:
        raise InputError(
            f"the frame was sent with encoder {header.encoder_id:04x}, model {config.name!r} "
            f"has encoder {encoder_id:04x}; receive it with the sender's model"
        )
