"""The modems by mode, and the symbols that each sends."""

import numpy as np

from ..header import Transmission
from . import digital
from .analog import Analog
from .digital import Digital

MODEMS = {"analog": Analog, "digital": Digital}


def on_air(sent: Transmission) -> np.ndarray:
    """The symbols x [1, k] that a transmission sends: analog ones as they are, a packet as QAM symbols."""
    return digital.symbols(sent.content, sent.header) if isinstance(sent.content, bytes) else sent.content
