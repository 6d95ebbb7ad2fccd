"""The mixed modem: the base as analog symbols, and behind it the picture itself as a packet of bytes.

Where the packet arrives, the picture is faithful; where it is lost, that of the base is there. It is for channels whose
SNR the sender knows, and for more channel uses than the base takes. The packet is a still picture of AV1 (avif.py) in
5G LDPC and QAM (mcs.py, ldpc.py), whose symbols have unit power over the constellation.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..cascade.engine import Engine
from ..channels.base import Received
from ..errors import InputError, require
from ..header import Header, Transmission
from ..images import to_pixels
from . import avif, digital, mcs
from .analog import Analog, Estimate


class Draft(NamedTuple):
    """The picture that a packet holds."""

    pixels: np.ndarray  # uint8 [H, W, 3]
    bits: int  # that it took


class Mixed:
    """Sends the base, then `header.packet_uses` symbols of a packet."""

    side_bits = 0  # in addition to the header

    def __init__(self, engine: Engine):
        self.analog = Analog(engine)

    def modulate(
        self, layers: list[np.ndarray], header: Header, snr_db: float | None = None, size_bytes: int | None = None
    ) -> Transmission:
        """Z and the picture [1, 3, H, W] -> the symbols of Z, and those of a packet for this SNR.

        Only the base is sent where no picture fits into the bytes that a packet carries at this SNR.

        Raises:
            InputError: a package is not installed, or a packet without an SNR is asked for.
        """
        require("the LDPC code of a packet", "sionna")
        if header.packet_uses and snr_db is None:
            raise InputError("a packet behind the base is made for an SNR; give snr_db")
        uses, base = header.packet_uses, self.analog.modulate(layers[:1], replace(header, packet_uses=0))
        scheme = mcs.choose(uses, snr_db) if uses and snr_db is not None else None
        payload = avif.fit(to_pixels(layers[1]), mcs.plan(uses, scheme).payload_bytes) if scheme else None
        if scheme is None or payload is None:
            return base
        header = replace(base.header, scheme=mcs.TABLE.index(scheme) + 1, packet_uses=uses)
        return Transmission(header, np.concatenate([base.content, digital.symbols(payload, header)], axis=1))

    def demodulate(self, arrived: Received, header: Header) -> list[Estimate]:
        """What is known of Z."""
        return self.analog.demodulate(part(arrived, 0, -header.packet_uses), replace(header, packet_uses=0))

    def draft(self, arrived: Received, header: Header) -> Draft | None:
        """The picture in the packet, None if it was lost.

        Raises:
            InputError: the packet holds no picture.
        """
        scheme = digital.find_scheme(header)
        payload = digital.decode(part(arrived, -header.packet_uses, None), scheme)
        if payload is None:
            return None
        return Draft(avif.show(payload, header.height, header.width), 8 * avif.length(payload))


def part(arrived: Received, first: int, last: int | None) -> Received:
    return Received(*(p[:, first:last] if p.shape[1] > 1 else p for p in arrived))
