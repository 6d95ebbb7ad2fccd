"""The link: one picture's way, from pixels to pixels, analog or digital. Everything else in semcast walks it.

image -> transmit -> layers -> modulate -> x -> channel -> y -> demodulate -> layers and noise -> receive -> image"""

from time import perf_counter

import numpy as np

from .cascade.engine import Engine
from .channels.base import Received
from .channels.catalogue import find_channel
from .errors import Lost
from .header import BASE, Header, Transmission
from .images import Picture, as_image, mean_colour
from .modulation.modems import MODEMS, demodulate, draft, on_air
from .randomness import stream
from .receiver import Reconstruction, check_encoder, receive
from .transmitter import transmit


class Link:
    """>>> Link(load_model("small"), channel="rician", k_db=3)(read_image("photo.jpg"), snr_db=10, seed=0)"""

    def __init__(self, engine: Engine, channel: str = "awgn", mode: str = "analog", **options):
        self.engine, self.mode, self.channel = engine, mode, find_channel(channel)
        self.options = self.channel.check(options)
        self.modems = {name: modem(engine) for name, modem in MODEMS.items()}

    def send(self, image: Picture, snr_db=None, size_bytes=None, factor=None, rungs=BASE, packet=0) -> Transmission:
        """A picture (`images.as_image`) -> header and symbols, or digital's packet; packet: channel uses of mixed's."""
        sent = transmit(as_image(image), self.engine, factor, rungs, packet)
        return self.modems[self.mode].modulate(*sent, snr_db, size_bytes)

    def propagate(self, x: np.ndarray, snr_db: float, seed: int = 0) -> Received:
        """x [1, k], from `on_air` -> what the antenna sees."""
        return self.channel(x, snr_db, [stream(seed, "channel")], **self.options)

    def receive(self, arrived: Received | bytes, header: Header, steps=None, progress=None, seed=0, others=()):
        """What arrived, its header, any seed -> image [1, 3, H, W] in [0, 1]. Raises `Lost` if a packet is lost.
        others: (arrived, header) of more transmissions of the picture, with other rungs of it or the same again."""
        check_encoder([header, *(h for _, h in others)], self.engine)
        parts = [(arrived, header), *others]
        known, picture = demodulate(self.modems, parts), draft(self.modems, parts)
        return receive(*known, self.engine, [stream(seed, "receiver")], steps, progress, picture)

    def __call__(self, image: Picture, snr_db, seed=0, factor=None, steps=None, progress=None, rungs=BASE, packet=0):
        """All in a row, timed: a `Reconstruction`; equal arguments give equal ones. A lost picture is its mean colour.
        snr_db: Es/N0; seed: of all noise; factor: encoder input side / picture side; progress: called after a step."""
        image, sent, received, lost = as_image(image), None, None, False
        start_s, sent_s, arrived_s = perf_counter(), np.inf, np.inf
        try:
            sent = self.send(image, snr_db, None, factor, rungs, packet)
            x, sent_s = on_air(sent), perf_counter()
            received, arrived_s = self.propagate(x, snr_db, seed), perf_counter()
            result = self.receive(received, sent.header, steps, progress, seed)
        except Lost:
            lost, result = True, np.broadcast_to(mean_colour(image), image.shape)
        encode_s, decode_s = min(sent_s, end_s := perf_counter()) - start_s, max(end_s - arrived_s, 0)
        return Reconstruction(result, lost, sent, received, 1e3 * encode_s, 1e3 * decode_s)
