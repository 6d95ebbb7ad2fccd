"""The modems by mode, the symbols that each sends, and what they make of several receptions."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..header import Header, Transmission
from . import digital
from .analog import Analog, Estimate
from .digital import Digital
from .ladder import merge

MODEMS = {"analog": Analog, "digital": Digital}


def on_air(sent: Transmission) -> np.ndarray:
    """The symbols x [1, k] that a transmission sends: analog ones as they are, a packet as QAM symbols."""
    return digital.symbols(sent.content, sent.header) if isinstance(sent.content, bytes) else sent.content


def demodulate_all(
    arrivals: Iterable[tuple[Any, Header]], modems: Mapping[str, Analog | Digital]
) -> tuple[Header, list[Estimate]]:
    """What (arrived, header) of transmissions of one picture say together (`ladder.merge`): its header and layers."""
    return merge([(header, modems[header.mode].demodulate(arrived, header)) for arrived, header in arrivals])
