"""The digital modem: Z as a packet of bytes, coded and modulated for the SNR. The packet arrives whole or is lost.

It serves links that take no analog symbols, and comparisons. packet.py makes the bytes, mcs.py chooses modulation and
code rate, ldpc.py makes the QAM symbols, with torch.
"""

import functools
from dataclasses import replace

import numpy as np

from ..cascade.engine import Engine
from ..channels.base import Received
from ..errors import InputError, Lost, require
from ..header import BASE, Header, Transmission, stamp
from . import analog, mcs, packet

NO_CHANNEL = 31  # `Header.scheme` of a packet made without a channel; 1 .. 16 are rows of `mcs.TABLE`


class Digital:
    """Sends the bytes of a packet; `symbols` turns them into QAM symbols."""

    side_bits = 24  # in addition to the header: the mean colour, shown if the packet is lost

    def __init__(self, engine: Engine):
        self.engine = engine

    @functools.cached_property
    def basis(self) -> np.ndarray:
        """The transform [16, 16] of `packet.make_basis`, which both ends compute."""
        return packet.make_basis(self.engine.encode)

    def modulate(
        self, layers: list[np.ndarray], header: Header, snr_db: float | None = None, size_bytes: int | None = None
    ) -> Transmission:
        """Make a packet of Z, which is `layers[0]`, for an SNR, or of a given size.

        Args:
            snr_db: make the largest packet that k uses of AWGN carry at this SNR with a loss of at most 1 %.
            size_bytes: make a packet of at most this size, for no channel.

        Raises:
            Lost: k uses carry no packet at this SNR.
            InputError: size_bytes is too small, a package is not installed, or other rungs than the base are asked for.
        """
        analog.refuse_packet(header)
        if header.rungs != BASE:
            raise InputError("a packet holds the whole base and nothing else; send other rungs as analog symbols")
        x, gain = analog.modulate(layers[0])
        header = replace(header, gain=float(np.float16(gain.item())))
        if size_bytes is not None:
            header = replace(header, scheme=NO_CHANNEL)
            payload = packet.pack(x, header.latent_shape, self.basis, size_bytes)
        elif snr_db is not None:
            header, payload = self.fill(x, header, snr_db)
        else:
            raise ValueError("a packet needs snr_db or size_bytes")
        return Transmission(stamp(header, payload), payload)

    def fill(self, x: np.ndarray, header: Header, snr_db: float) -> tuple[Header, bytes]:
        """Make the largest packet that k channel uses carry at this SNR; the header returned names its scheme."""
        k, scheme = x.shape[1], mcs.choose(x.shape[1], snr_db)
        room = mcs.plan(k, scheme).payload_bytes if scheme else 0
        try:
            payload = packet.pack(x, header.latent_shape, self.basis, room).ljust(room, b"\0")
        except InputError:
            raise Lost(
                f"{k} channel uses at {snr_db:g} dB carry {room} bytes, too few for a packet; "
                "raise --snr or send analog"
            ) from None
        assert scheme is not None  # no packet fits into 0 bytes
        return replace(header, scheme=mcs.TABLE.index(scheme) + 1), payload

    def demodulate(self, arrived: bytes | Received, header: Header) -> list[analog.Estimate]:
        """Decode received symbols, or take the bytes of a packet -> what is known of Z, as `analog.demodulate`.

        Raises:
            Lost: the packet's checksum fails.
            InputError: the packet belongs to another header, or cannot be decoded.
        """
        payload = arrived if isinstance(arrived, bytes) else decode(arrived, find_scheme(header))
        if payload is None:
            raise Lost(
                f"the packet was lost on the channel (its checksum fails; it was sent with {find_scheme(header)}); "
                "send it again"
            )
        if stamp(header, payload).transmission_id != header.transmission_id:
            raise InputError("the packet belongs to another transmission than its header; fetch it again")
        x = packet.unpack(payload, header.latent_shape, self.basis)
        return [analog.demodulate(x, header.gain, header.latent_shape, self.engine.config.noise_aware)]


def symbols(payload: bytes, header: Header) -> np.ndarray:
    """Encode a packet as QAM symbols x [1, k] of unit power over the constellation."""
    require("the LDPC code of a packet", "sionna")
    from . import ldpc

    return ldpc.encode([payload], header.packet_uses or header.channel_uses, find_scheme(header))


def decode(received: Received, scheme: mcs.Mcs) -> bytes | None:
    """The packet in received symbols, or None if its checksum fails."""
    require("the LDPC code of a packet", "sionna")
    from . import ldpc

    return ldpc.decode(received, scheme)[0]


def find_scheme(header: Header) -> mcs.Mcs:
    """Return the modulation and code rate of a packet.

    Raises:
        InputError: the packet was made for no channel.
    """
    if not 1 <= header.scheme <= len(mcs.TABLE):
        raise InputError("the packet was made with --bytes, for no channel; send it with --snr")
    return mcs.TABLE[header.scheme - 1]
