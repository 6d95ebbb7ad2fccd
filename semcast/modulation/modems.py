"""The modems by mode, the symbols that each sends, and what they make together of all that arrived of a picture."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..channels.base import Received
from ..header import Header, Transmission
from . import digital
from .analog import Analog, Estimate
from .digital import Digital
from .ladder import merge
from .mixed import Draft, Mixed

MODEMS = {"analog": Analog, "digital": Digital, "mixed": Mixed}


def on_air(sent: Transmission) -> np.ndarray:
    """The symbols x [1, k] that a transmission sends: analog ones as they are, a packet as QAM symbols."""
    return digital.symbols(sent.content, sent.header) if isinstance(sent.content, bytes) else sent.content


def demodulate(
    modems: Mapping[str, Any], transmissions: Iterable[tuple[Received | bytes, Header]]
) -> tuple[Header, list[Estimate]]:
    """What arrived of one picture, each part with its header -> a header and what is known of the layers, Z first.

    The picture that a packet holds is `draft`'s.

    Raises:
        InputError: as `ladder.merge`.
        Lost: a packet is lost.
    """
    return merge([(header, modems[header.mode].demodulate(arrived, header)) for arrived, header in transmissions])


def draft(modems: Mapping[str, Any], transmissions: Iterable[tuple[Received | bytes, Header]]) -> Draft | None:
    """The picture of the largest packet behind a base that arrived, None without one."""
    found = [modems["mixed"].draft(arrived, header) for arrived, header in transmissions if header.packet_uses]
    return max((picture for picture in found if picture), key=lambda picture: picture.bits, default=None)
