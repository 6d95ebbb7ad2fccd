"""semcast sends pictures over links so poor that ordinary codecs deliver nothing.

>>> from semcast import Link, load_model, read_image
>>> link = Link(load_model("small"))
>>> result = link(read_image("photo.jpg"), snr_db=10, seed=0)     # result.image: [1, 3, H, W] in [0, 1]
"""

__version__ = "0.1.0"
__all__ = ["Header", "InputError", "Link", "Received", "Reconstruction", "awgn", "combine", "load_model", "read_image", "write_image"]

_HOME = {
    "Header": "transmitter",
    "InputError": "errors",
    "Link": "link",
    "Received": "channel",
    "Reconstruction": "link",
    "awgn": "channel",
    "combine": "combining",
    "load_model": "models",
    "read_image": "images",
    "write_image": "images",
}


def __getattr__(name: str):
    """Import on first use, so that `import semcast` and `semcast --help` stay fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'semcast' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
