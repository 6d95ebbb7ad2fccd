"""How wrong a received picture may be, and where: an expected error for every cell of 32x32 pixels.

The error is the mean absolute difference to the original over the pixels and colours of a cell, in units of 8-bit
levels, 0 to 255. It is told from what a receiver has: the picture, the noise of what arrived, and what the encoder
makes of the picture. `confidence.json` beside a model's weights holds the formula,
log(error + 0.5) = the sum of weight times feature; `benchmarks/confidence.py` makes it from photos with known errors.
No weight but that of `one` is negative, so more noise never means less error.
"""

import json
from pathlib import Path

import numpy as np

from ..cascade.engine import Engine
from ..cascade.models import find_model
from ..errors import InputError
from ..header import Header
from ..modulation.analog import Estimate
from ..receiver import every_layer
from ..transmitter import encode, pad

CELL = 32  # pixels a side; those at the right and lower edge may be smaller
FILE = "confidence.json"
OFFSET = 0.5  # of 255, so that the logarithm of a perfect cell exists
DETAIL_MAX = 4.0  # logarithm of a slope that no cell of a photo exceeds
BLOCK = 8  # pixels a side; differences between blocks are contrast, within them detail
FEATURES = (
    "one",
    "noise_on_flat",
    "nearly_lost",
    "above",
    "detail",
    "contrast",
    "headroom",
    "returned",
)
Weights = dict[str, float]  # of the features
SHOWN_MAX = 50.0  # error at the bright end of the map, of 255
COLOURS = (  # of the map, from 0 to SHOWN_MAX: matplotlib's "inferno" at equal steps
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)


def features(image: np.ndarray, header: Header, layers: list[Estimate], engine: Engine) -> dict[str, np.ndarray]:
    """What a receiver knows of each cell.

    Args:
        image: the received picture [1, 3, H, W] in [0, 1].
        layers: what it was made of, from a modem's `demodulate`.
    Returns:
        The maps of `FEATURES`, [rows, columns] of cells each.
    """
    sides = header.height, header.width
    over = lambda values, extent=sides: cell_means(values, extent, sides)
    grey = 255 * image[0].mean(axis=0)
    detail = np.log(over(slope(grey)) + 0.5)
    blocks = cell_means(grey, sides, sides, BLOCK)
    noise, *above = (over(layer.noise[0].mean(axis=0), header.padded) for layer in every_layer(layers, header))
    again = encode(pad(image, header.padded), engine.encode, header.factor)
    maps: tuple[np.ndarray, ...] = (
        np.ones_like(noise),
        noise * np.maximum(DETAIL_MAX - detail, 0),  # cells with detail are wrong in it with or without noise
        noise**4,
        np.mean(above, axis=0),
        detail,
        neighbourhood(np.log(over(slope(blocks)) + 0.5)),
        np.log(over(np.minimum(grey, 255 - grey)) + 4),  # black and white can only be wrong in one direction
        np.log(over((again[0] ** 2).mean(axis=0), header.padded) + 1e-2),  # what the encoder sees in the picture
    )
    return dict(zip(FEATURES, maps, strict=True))


def expected_error(
    image: np.ndarray, header: Header, layers: list[Estimate], engine: Engine, weights: Weights
) -> np.ndarray:
    """The expected error of every cell, [rows, columns], from 0 to 255. Arguments as in `features`."""
    maps = features(image, header, layers, engine)
    return np.clip(np.exp(sum(weights[name] * maps[name] for name in FEATURES)) - OFFSET, 0, 255)


def true_error(original: np.ndarray, received: np.ndarray) -> np.ndarray:
    """What `expected_error` predicts: the mean absolute error of every cell of two pictures [1, 3, H, W], of 255."""
    sides = original.shape[-2], original.shape[-1]
    return cell_means(255 * np.abs(received - original)[0].mean(axis=0), sides, sides)


def cell_means(values: np.ndarray, extent: tuple[int, int], sides: tuple[int, int], cell: int = CELL) -> np.ndarray:
    """Means over the cells of a picture.

    Args:
        values: [h, w], equal rectangles that cover `extent` pixels from the picture's upper left corner.
        sides: height and width of the picture; what lies beyond them does not count.
    Returns:
        [rows, columns]
    """
    rows, columns = (shares(*each, cell) for each in zip(values.shape, extent, sides))
    return rows @ values.astype(np.float32) @ columns.T


def shares(count: int, extent: int, side: int, cell: int) -> np.ndarray:
    """[cells, count]: weight of each of `count` equal stretches of `extent` in the mean over each cell of `side`."""
    edges = np.linspace(0, extent, count + 1)
    starts = np.arange(0, side, cell)[:, None]
    overlaps = np.minimum(edges[1:], np.minimum(starts + cell, side)) - np.maximum(edges[:-1], starts)
    overlaps = overlaps.clip(min=0)
    return (overlaps / overlaps.sum(axis=1, keepdims=True)).astype(np.float32)


def slope(values: np.ndarray) -> np.ndarray:
    """Length of the gradient, [h, w]."""
    return np.hypot(*np.gradient(values))


def neighbourhood(cells: np.ndarray) -> np.ndarray:
    """The mean over each cell and its eight neighbours; edges are repeated."""
    around = np.pad(cells, 1, mode="edge")
    rows, columns = cells.shape
    return np.mean([around[i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=0)


def load_weights(model: str | Path, encoder_id: int | None = None) -> Weights:
    """The weights of a model's formula.

    Args:
        model: name or folder.
        encoder_id: of the model; refuse weights that were made for another.
    Raises:
        InputError: there are none, they are damaged, or they are of another encoder.
    """
    known = find_model(model)
    assert known.folder is not None  # `find_model` refuses a model that has not been fetched
    path, remedy = known.folder / FILE, "make one with benchmarks/confidence.py"
    try:
        held = json.loads(path.read_text())
        weights = {name: float(held["weights"][name]) for name in FEATURES}
        made_for = int(held["encoder_id"], 16)
    except FileNotFoundError:
        raise InputError(f"model {known.config.name!r} has no calibration for --confidence; {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no calibration for --confidence ({error}); {remedy}") from None
    if not np.isfinite(list(weights.values())).all():
        raise InputError(f"{path} is no calibration for --confidence (a weight is not finite); {remedy}")
    if encoder_id is not None and made_for != encoder_id:
        raise InputError(f"{path} is of encoder {made_for:04x}, the model's is {encoder_id:04x}; {remedy}")
    return weights


def figures(errors: np.ndarray) -> dict:
    """Expected errors [rows, columns] as plain numbers, of 255."""
    worst = np.sort(errors, axis=None)[-max(1, round(errors.size / 10)) :]
    return {
        "cell_pixels": CELL,
        "error_mean": round(float(errors.mean()), 2),
        "error_worst_tenth": round(float(worst.mean()), 2),
        "errors": [[round(float(error), 2) for error in row] for row in errors],
    }


def heat_map(errors: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Expected errors [rows, columns] -> uint8 [H, W, 3]: black is sure, yellow an error of `SHOWN_MAX` and more."""
    scale = np.linspace(0, SHOWN_MAX, len(COLOURS))
    colours = np.stack([np.interp(errors, scale, column) for column in np.transpose(COLOURS)], axis=-1)
    return over_pixels(colours.round().astype(np.uint8), sides)


def over_pixels(cells: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """[rows, columns, ...] -> [H, W, ...]: the value of its cell at every pixel."""
    return cells.repeat(CELL, axis=0)[: sides[0]].repeat(CELL, axis=1)[:, : sides[1]]
