"""A plot of all channels: one realisation of what the receiver gets from each."""

from pathlib import Path

import torch

from ..errors import require
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

    g = torch.Generator().manual_seed(0)
    parts = (2 * torch.randint(4, (2, 1, K), generator=g) - 3) / 10**0.5  # 16-QAM
    x = torch.complex(*parts)
    figure = Figure(figsize=(10, 1.9 * len(CHANNELS)), layout="constrained")
    FigureCanvasAgg(figure)
    for row, channel in zip(figure.subplots(len(CHANNELS), 3, width_ratios=(1, 3, 1.2)), CHANNELS.values()):
        y, h, noise_var = channel(x, SNR_DB, [torch.Generator().manual_seed(0)])
        equalised = y / h
        ratio_db = 10 * (noise_var / h.abs().square()).expand(1, K).log10()[0]  # noise over signal, +inf if erased
        kept = ratio_db.isfinite()
        row[0].plot(equalised[0, kept].real, equalised[0, kept].imag, ".", markersize=1.5)
        row[0].set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", ylabel=channel.name)
        row[1].plot(torch.arange(K)[kept], -ratio_db[kept], ".", markersize=1.5)
        row[1].set(ylim=(-20, 30), xlim=(0, K), ylabel="gain / noise, dB")
        shades = row[2].imshow(
            ratio_db.nan_to_num(posinf=30).view(MAP), vmin=-30, vmax=30, cmap="magma", interpolation="nearest"
        )
        figure.colorbar(shades, ax=row[2], label="noise, dB")
        row[2].set(xticks=[], yticks=[])
    figure.savefig(path, dpi=80)
