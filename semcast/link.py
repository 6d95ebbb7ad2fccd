"""The link: one picture's way, from pixels to pixels, analog or digital. Everything else in semcast walks it.

image -> transmit -> Z -> modulate -> x -> channel -> y -> demodulate -> Z and its noise -> receive -> image
"""

from time import perf_counter

from torch import Tensor

from .cascade.checkpoint import encoder_id
from .cascade.model import Cascade
from .channels.base import Received
from .channels.catalogue import find_channel
from .errors import Lost
from .header import Header, Transmission
from .images import mean_colour
from .modulation.modems import MODEMS, on_air
from .randomness import stream
from .receiver import Reconstruction, check_encoder, receive
from .transmitter import transmit


class Link:
    """>>> Link(load_model("small"), channel="rician", k_db=3)(read_image("photo.jpg"), snr_db=10, seed=0)"""

    def __init__(self, cascade: Cascade, channel: str = "awgn", mode: str = "analog", **options):
        self.cascade, self.mode, self.channel = cascade, mode, find_channel(channel)
        self.options = self.channel.check(options)
        self.modems = {name: modem(cascade) for name, modem in MODEMS.items()}
        self.encoder_id = encoder_id(cascade.encoder)

    def send(self, image: Tensor, snr_db=None, size_bytes=None, factor=None, seed: int = 0) -> Transmission:
        """image [1, 3, H, W] in [0, 1] -> header and symbols, or in digital mode a packet for an SNR or of a size."""
        z, header = transmit(image, self.cascade, self.encoder_id, factor or self.cascade.config.factor, seed)
        return self.modems[self.mode].modulate(z, header, snr_db, size_bytes)

    def propagate(self, x: Tensor, snr_db: float, seed: int = 0) -> Received:
        """x [1, k], from `on_air` -> what the antenna sees."""
        return self.channel(x, snr_db, [stream(seed, "channel")], **self.options)

    def receive(self, arrived: Received | bytes, header: Header, steps: int | None = None, progress=None) -> Tensor:
        """What arrived, and its header -> image [1, 3, H, W] in [0, 1]. Raises `Lost` where a packet did not arrive."""
        check_encoder(header, self.encoder_id, self.cascade.config)
        z, noise = self.modems[header.mode].demodulate(arrived, header)
        return receive(z, noise, header, self.cascade, [stream(header.seed, "receiver")], steps, progress)

    def __call__(self, image: Tensor, snr_db: float, seed=0, factor=None, steps=None, progress=None) -> Reconstruction:
        """The three in a row, timed. A lost picture is shown as its mean colour, which is side information."""
        start_s, sent_s, arrived_s, sent, received, lost = perf_counter(), None, None, None, None, False
        try:
            sent = self.send(image, snr_db, factor=factor, seed=seed)
            x, sent_s = on_air(sent), perf_counter()
            received, arrived_s = self.propagate(x, snr_db, seed), perf_counter()
            result = self.receive(received, sent.header, steps, progress).cpu()
        except Lost:
            lost, result = True, mean_colour(image).expand_as(image)
        end_s = perf_counter()
        times_s = (sent_s or end_s) - start_s, end_s - (arrived_s or end_s)
        return Reconstruction(result, lost, sent, received, *(1e3 * time_s for time_s in times_s))
