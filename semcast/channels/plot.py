"""A plot of all channels: one realisation of what the receiver gets from each."""

import io
from pathlib import Path

import numpy as np

from ..errors import require
from ..files import write_bytes
from ..randomness import seeded
from .catalogue import CHANNELS

K = 1152  # symbols of a 512x512 picture
MAP = (32, 36)
SNR_DB = 10.0


def plot(path: Path) -> None:
    """Draw a row per channel: equalised 16-QAM symbols, |h|^2 / noise_var per symbol, and its inverse as a map.

    Raises:
        InputError: matplotlib or Sionna is not installed.
    """
    require("drawing", "matplotlib", "sionna")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    real, imag = (2 * seeded("plot").integers(4, size=(2, 1, K)) - 3) / 10**0.5  # 16-QAM
    x = (real + 1j * imag).astype(np.complex64)
    figure = Figure(figsize=(10, 1.9 * len(CHANNELS)), layout="constrained")
    FigureCanvasAgg(figure)
    for row, channel in zip(figure.subplots(len(CHANNELS), 3, width_ratios=(1, 3, 1.2)), CHANNELS.values()):
        y, h, noise_var = channel(x, SNR_DB, [seeded(0)])
        equalised = y / h
        ratio_db = np.broadcast_to(10 * np.log10(noise_var / np.abs(h) ** 2), (1, K))[
            0
        ]  # noise over signal; erased: inf
        kept = np.isfinite(ratio_db)
        row[0].plot(equalised[0, kept].real, equalised[0, kept].imag, ".", markersize=1.5)
        row[0].set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", ylabel=channel.name)
        row[1].plot(np.arange(K)[kept], -ratio_db[kept], ".", markersize=1.5)
        row[1].set(ylim=(-20, 30), xlim=(0, K), ylabel="gain / noise, dB")
        shades = row[2].imshow(
            np.minimum(ratio_db, 30).reshape(MAP), vmin=-30, vmax=30, cmap="magma", interpolation="nearest"
        )
        figure.colorbar(shades, ax=row[2], label="noise, dB")
        row[2].set(xticks=[], yticks=[])
    file = io.BytesIO()
    figure.savefig(file, dpi=80, format=path.suffix[1:].lower())
    write_bytes(path, file.getvalue())
