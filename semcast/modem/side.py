"""The header of a picture as the modem sends it: always 13 bytes, whether `header.pack` makes 12 or 13 of it."""

from ..errors import InputError
from ..header import HEADER_BYTES, VERSION, Header, pack, unpack
from . import profiles


def to_air(header: Header) -> bytes:
    """The bytes that `transmit.modulate` takes: the packed header, and a zero behind it if it has 12 bytes."""
    return pack(header).ljust(profiles.HEADER_BYTES, b"\0")


def from_air(data: bytes) -> Header | None:
    """Invert `to_air`; None if the bytes are damaged or announce no analog symbols. The first 4 bits say the version."""
    size = HEADER_BYTES if data[0] >> 4 == VERSION else profiles.HEADER_BYTES
    if any(data[size:]):
        return None
    try:
        header = unpack(data[:size])
    except InputError:
        return None
    return header if header.mode == "analog" else None


def n_symbols(data: bytes) -> int | None:
    """How many symbols of payload follow a header, as `receive.find` asks."""
    header = from_air(data)
    return header.channel_uses if header else None
