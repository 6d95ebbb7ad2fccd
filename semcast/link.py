"""The link: one picture's way, from pixels to pixels. Command line, training, benchmarks and Python API call it."""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from . import packet
from .cascade.checkpoint import code_id
from .cascade.diffusion import seeded
from .cascade.model import Cascade
from .channel import Received, find_channel
from .errors import InputError
from .receiver import receive
from .transmitter import Header, transmit


class Reconstruction(NamedTuple):
    image: Tensor  # [1, 3, H, W] in [0, 1]
    x: Tensor  # [1, k] complex, what was sent
    header: Header  # side information, `transmitter.SIDE_BITS` bits
    received: Received  # what the receiver was given


class Link:
    """image -> transmitter -> x -> channel -> (y, h, noise_var) -> receiver -> image

    >>> link = Link(load_model("small"))
    >>> result = link(read_image("photo.jpg"), snr_db=10, seed=0)
    >>> fading = Link(load_model("small"), "rician", k_db=3)    # `semcast channels` lists channels and options
    """

    def __init__(self, cascade: Cascade, channel: str = "awgn", **options):
        self.cascade = cascade
        self.channel = find_channel(channel)
        self.options = self.channel.check(options)
        self.code_id = code_id(cascade.encoder)

    @torch.inference_mode()
    def send(self, image: Tensor, factor: float | None = None, seed: int = 0) -> tuple[Tensor, Header]:
        """image [1, 3, H, W] in [0, 1] -> (x [1, k], header)."""
        return transmit(beside(self.cascade.encoder, image), self.cascade.encoder, self.code_id, factor or self.cascade.config.factor, seed)

    def send_packet(
        self, image: Tensor, snr_db: float | None = None, size_bytes: int | None = None, factor: float | None = None, seed: int = 0
    ) -> tuple[bytes, Header]:
        """As `send`, in digital clothes: (payload, header), for a channel of snr_db or of a size. See `packet.prepare`."""
        return packet.prepare(*self.send(image, factor, seed), self.basis, snr_db, size_bytes)

    def unpack(self, signal: bytes | Received, header: Header) -> Received:
        """A payload, or what a channel made of `packet.on_air` -> what `receive` takes. Analog symbols pass as they are."""
        return packet.arrive(signal, header, self.basis) if header.scheme else signal

    @functools.cached_property
    def basis(self) -> np.ndarray:
        """Of packets, [16, 16]."""
        return packet.make_basis(self.cascade.encoder)

    def transmit(self, x: Tensor, snr_db: float, seed: int = 0) -> Received:
        """x [1, k] -> what the antenna sees."""
        return self.channel(x, snr_db, [stream(seed, "channel")], **self.options)

    @torch.inference_mode()
    def receive(self, received: Received, header: Header, steps: int | None = None, progress=None) -> Tensor:
        """(y, h, noise_var), of a packet after `unpack`, and the header -> image [1, 3, H, W] in [0, 1]."""
        if header.code_id != self.code_id:
            raise InputError(
                f"the frame was sent with encoder {header.code_id:04x}, model {self.cascade.config.name!r} "
                f"has encoder {self.code_id:04x}; receive it with the sender's model"
            )
        received = Received(*(beside(self.cascade.stage_b, part) for part in received))
        return receive(received, header, header.gain, self.cascade, [stream(header.seed, "receiver")], steps, progress)

    def __call__(self, image: Tensor, snr_db: float, seed: int = 0, factor: float | None = None, steps: int | None = None):
        x, header = self.send(image, factor, seed)
        received = self.transmit(x, snr_db, seed)
        return Reconstruction(self.receive(received, header, steps), x, header, received)


def beside(network: nn.Module, tensor: Tensor) -> Tensor:
    """The tensor on the network's device. A network in main memory leaves it where it is: it visits (`--low-memory`)."""
    device = next(network.parameters()).device
    return tensor if device.type == "cpu" else tensor.to(device)


def move(received: Received, device: str) -> Received:
    return Received(*(part.to(device) for part in received))


def stream(seed: int, name: str) -> Generator:
    """An independent generator, on the CPU, for one purpose of one picture."""
    return seeded(name, int(seed))
