"""Receiver: what is known of Z -> Stage B -> Stage A -> picture -> enhancement, if layers above Z arrived."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .cascade.denoiser import denoise, prepare
from .cascade.diffusion import sample
from .cascade.engine import Engine
from .channels.base import Received
from .errors import InputError
from .header import BASE, Header, Transmission
from .images import encode, to_image, to_pixels
from .modulation.analog import Estimate
from .modulation.mixed import Draft
from .randomness import draw_noise
from .transmitter import check_packet, check_rungs, pad


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
    header: Header,
    layers: list[Estimate],
    engine: Engine,
    generators: Sequence[Generator],
    steps: int | None = None,
    progress: Callable[[int], None] | None = None,
    draft: Draft | None = None,
) -> np.ndarray:
    """What a modem made of receptions -> images [B, 3, H, W] in [0, 1].

    Args:
        header: sides and factor of the pictures, the same for all rows.
        layers: from a modem's `demodulate`, Z first.
        generators: one a row, for the diffusion noise.
        steps: of the sampler, default the model's.
        progress: called with the number of finished steps.
        draft: the picture of a packet behind the base, which stands for the layers above Z; of one row.
    """
    steps = engine.config.steps if steps is None else steps
    if steps < 1:
        raise InputError(f"{steps} diffusion steps; a picture takes 1 or more")
    size = header.padded[0] // 4, header.padded[1] // 4
    start = draw_noise(
        np.empty((len(layers[0].z), engine.config.stage_a.latent_channels, *size), np.float32), generators
    )
    with engine.sampling():
        condition = prepare(engine, layers[0].z, layers[0].noise, size)
        denoiser = lambda x, t: denoise(engine, x, t, condition)
        latent = sample(denoiser, start, steps, generators, progress=progress)
    image = engine.decode(latent)
    image = np.clip(image, 0, 1, out=image)  # in place, for large pictures
    if draft is not None:
        picture = pad(to_image(draft.pixels), header.padded)
        image = engine.restore(image, picture, draft.bits / (header.height * header.width))
        image = np.clip(image, 0, 1, out=image)
    elif any((layer.noise < 1).any() for layer in layers[1:]):
        image = engine.enhance(image, [np.concatenate(layer, axis=1) for layer in every_layer(layers, header)[1:]])
        image = np.clip(image, 0, 1, out=image)
    return image[..., : header.height, : header.width]


def every_layer(layers: list[Estimate], header: Header) -> list[Estimate]:
    """Add those of which nothing arrived."""
    absent = [np.zeros((len(layers[0].z), *shape), np.float32) for shape in header.layer_shapes[len(layers) :]]
    return layers + [Estimate(zeros, zeros + 1) for zeros in absent]


def check_encoder(headers: Sequence[Header], engine: Engine) -> None:
    """Refuse what another encoder sent, unless the model says that it understands that one too."""
    for header in headers:
        understood = () if header.last_rung > BASE[1] else engine.config.understands  # whose base is the same
        if header.encoder_id != engine.encoder_id and f"{header.encoder_id:04x}" not in understood:
            raise InputError(
                f"the frame was sent with encoder {header.encoder_id:04x}, model {engine.config.name!r} "
                f"has encoder {engine.encoder_id:04x}; receive it with the sender's model"
            )
        check_rungs(header.rungs, engine.config)
        check_packet(header.packet_uses, header.rungs, engine.config)
