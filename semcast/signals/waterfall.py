"""A waterfall for a terminal: one line of text says how strong each frequency is just now."""

import numpy as np

from .audio import RATE_HZ

SHADES = " .:-=+*#%@"
COLOURS = (16, 17, 18, 19, 26, 33, 44, 84, 190, 226, 231)  # of 256: black, blue, green, yellow, white
RANGE_DB = 30.0  # from the weakest shade to the strongest
QUIET = 0.2  # this share of the columns is taken for noise alone
LINE_HZ = 20.0  # distance of spectral lines; a block is averaged over pieces of 1 / LINE_HZ seconds


def waterfall(
    block: np.ndarray, rate_hz: float = RATE_HZ, columns: int = 75, high_hz: float = 3000.0, colour: bool = False
) -> str:
    """A line of `columns` characters for samples [N], from 0 to `high_hz`; the noise floor of the block is blank.

    Args:
        colour: backgrounds out of 256 colours (ANSI) instead of SHADES.
    """
    power_db = 10 * np.log10(spectrum(block, rate_hz, columns, high_hz) + 1e-20)
    steps = len(COLOURS if colour else SHADES) - 1
    above = (power_db - np.quantile(power_db, QUIET)) / RANGE_DB * steps
    shades = np.clip(np.round(above), 0, steps).astype(int)
    if not colour:
        return "".join(SHADES[shade] for shade in shades)
    return "".join(f"\x1b[48;5;{COLOURS[shade]}m " for shade in shades) + "\x1b[0m"


def spectrum(block: np.ndarray, rate_hz: float, columns: int, high_hz: float) -> np.ndarray:
    """Power of the strongest line in each of `columns` bands from 0 to `high_hz`; a sine of amplitude 1 has 1 or less."""
    size = round(rate_hz / LINE_HZ)
    padded = np.pad(block, (0, max(size - len(block), 0)))
    window = np.hanning(size)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]  # [pieces, size], half overlapping
    power = np.mean(np.abs(np.fft.rfft(pieces * window)) ** 2, axis=0) * (2 / window.sum()) ** 2
    lines_hz = np.arange(len(power)) * rate_hz / size
    edges = np.arange(columns) * high_hz / columns
    nearest = np.abs(lines_hz[None, :] - (edges + high_hz / columns / 2)[:, None]).argmin(axis=1)
    column = (lines_hz * columns / high_hz).astype(int)  # that a line falls into
    strongest = power[nearest]
    inside = column < columns
    np.maximum.at(strongest, column[inside], power[inside])
    return strongest


def axis(columns: int = 75, high_hz: float = 3000.0, step_hz: float = 500.0) -> str:
    """A line to put above: frequencies in Hz, each where it lies."""
    line = [" "] * columns
    for hz in np.arange(0, high_hz, step_hz):
        label, start = f"|{hz:g}", int(hz / high_hz * columns)
        if start + len(label) <= columns:
            line[start : start + len(label)] = label
    return "".join(line)
