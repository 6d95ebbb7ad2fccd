"""Receiver: what is known of Z -> Stage B -> Stage A -> picture."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .cascade.config import ModelConfig
from .cascade.denoiser import denoise, prepare
from .cascade.diffusion import sample
from .cascade.engine import Engine
from .channels.base import Received
from .errors import InputError
from .header import Header, Transmission
from .images import encode, to_pixels
from .randomness import draw_noise


class Reconstruction(NamedTuple):
    """One picture after the whole link, and what it took."""

    image: np.ndarray  # [1, 3, H, W] in [0, 1]; of a lost picture, its mean colour
    lost: bool  # digital only
    sent: Transmission | None  # None where the channel can carry no packet
    received: Received | None
    encode_ms: float  # picture -> symbols
    decode_ms: float  # received symbols -> picture

    def __repr__(self) -> str:
        _, _, height, width = self.image.shape
        how = "lost" if self.lost else f"encoded in {self.encode_ms:.0f} ms, decoded in {self.decode_ms:.0f} ms"
        return f"<Reconstruction of {width}x{height} pixels, {self.payload_uses} channel uses, {how}>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return encode(to_pixels(self.image))

    @property
    def payload_uses(self) -> int:
        """Complex symbols sent, without a channel's overhead."""
        return self.sent.header.channel_uses if self.sent else 0


def receive(
    z: np.ndarray,
    noise: np.ndarray,
    header: Header,
    engine: Engine,
    generators: Sequence[Generator],
    steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """What a modem made of receptions -> images [B, 3, H, W] in [0, 1].

    Args:
        z, noise: [B, 16, hz, wz], from `demodulate`.
        header: sides and factor of the pictures, the same for all rows.
        generators: one a row, for the diffusion noise.
        steps: of the sampler, default the model's.
        progress: called with the number of finished steps.
    """
    size = header.padded[0] // 4, header.padded[1] // 4
    start = draw_noise(np.empty((len(z), engine.config.stage_a.latent_channels, *size), np.float32), generators)
    with engine.sampling():
        condition = prepare(engine, z, noise, size)
        denoiser = lambda x, t: denoise(engine, x, t, condition)
        latent = sample(denoiser, start, steps or engine.config.steps, generators, progress=progress)
    image = engine.decode(latent)[..., : header.height, : header.width]
    return np.clip(image, 0, 1, out=image)  # in place, for large pictures


def check_encoder(header: Header, encoder_id: int, config: ModelConfig) -> None:
    """Refuse what another encoder sent, unless the model says that it understands that one too."""
    if header.encoder_id != encoder_id and f"{header.encoder_id:04x}" not in config.understands:
        raise InputError(
            f"the frame was sent with encoder {header.encoder_id:04x}, model {config.name!r} "
            f"has encoder {encoder_id:04x}; receive it with the sender's model"
        )
