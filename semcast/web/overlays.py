"""What the page lays over a received picture: where it may be wrong."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..cascade.engine import Engine
from ..channels.base import Received
from ..errors import InputError
from ..header import Header
from ..link import Link
from ..metrics.confidence import SHOWN_MAX, Weights, expected_error, load_weights, over_pixels
from ..modulation.modems import demodulate

COLOUR = (230, 0, 126)  # one that photos hardly have
OPAQUE = 220  # of 255, at an expected error of SHOWN_MAX

Overlay = Callable[[Link, Received, Header, np.ndarray], np.ndarray]


def overlays_of(model: str, engine: Engine) -> dict[str, Overlay]:
    """By the name of their result. A model without a calibration has none."""
    try:
        weights = load_weights(model, engine.encoder_id)
    except InputError:
        return {}
    return {"confidence": partial(doubt, weights)}


def doubt(weights: Weights, link: Link, received: Received, header: Header, image: np.ndarray) -> np.ndarray:
    """The errors to expect in a received picture [1, 3, H, W], as uint8 [H, W, 4]: what glows may be wrong."""
    errors = expected_error(image, *demodulate(link.modems, [(received, header)]), link.engine, weights)
    glow = np.clip(errors / SHOWN_MAX, 0, 1) ** 2  # squared, so that the picture stays clear where it is about right
    rgba = np.empty((*errors.shape, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = COLOUR, (OPAQUE * glow).round()
    return over_pixels(rgba, (image.shape[-2], image.shape[-1]))
