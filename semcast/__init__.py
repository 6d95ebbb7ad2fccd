"""semcast sends pictures over links so poor that ordinary codecs deliver nothing.

>>> from semcast import Link, load_model, read_image
>>> link = Link(load_model("small"))
>>> result = link(read_image("photo.jpg"), snr_db=10, seed=0)     # result.image: [1, 3, H, W] in [0, 1]
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cascade.engine import load_model
    from .channels.base import Received
    from .channels.catalogue import Channel
    from .channels.combining import combine
    from .channels.noise import awgn
    from .errors import InputError, Lost
    from .header import Header, Transmission
    from .images import read_image, write_image
    from .link import Link
    from .modulation.modems import on_air
    from .receiver import Reconstruction

__version__ = "0.2.0"
__all__ = [
    "Channel",
    "Header",
    "InputError",
    "Link",
    "Lost",
    "Received",
    "Reconstruction",
    "Transmission",
    "awgn",
    "combine",
    "load_model",
    "on_air",
    "read_image",
    "write_image",
]

_HOME = {
    "Channel": "channels.catalogue",
    "Header": "header",
    "InputError": "errors",
    "Link": "link",
    "Lost": "errors",
    "Received": "channels.base",
    "Reconstruction": "receiver",
    "Transmission": "header",
    "awgn": "channels.noise",
    "combine": "channels.combining",
    "load_model": "cascade.engine",
    "on_air": "modulation.modems",
    "read_image": "images",
    "write_image": "images",
}


def __getattr__(name: str):
    """Import on first use, so that `import semcast` and `semcast --help` stay fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'semcast' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
