"""`semcast receive --confidence`: a map of the errors to expect in a received picture, and the same as numbers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import STDIO, check_output, check_suffix, write_bytes

if TYPE_CHECKING:
    import numpy as np

    from ..channels.base import Received
    from ..header import Header
    from ..link import Link


def check_confidence(args, inputs: Sequence[Path]) -> None:
    """What can be refused before any work."""
    if not args.confidence:
        return
    if args.confidence == STDIO:
        raise InputError("--confidence names a file, for stdout is for the picture; give --json for the numbers")
    check_output(args.confidence, inputs, args.force)
    check_suffix(args.confidence)
    for flag, path in (("-o", args.output), ("--report", args.report), ("--reply", args.reply)):
        if path and path.resolve() == args.confidence.resolve():
            raise InputError(f"--confidence and {flag} both name {path}")
    from ..metrics.confidence import load_weights

    load_weights(args.model)


def check_calibration(args, link: "Link", headers: "Sequence[Header]" = ()) -> None:
    """What can be refused before a picture is made: packets, and a calibration for other weights."""
    if not args.confidence:
        return
    if any(header.mode != "analog" for header in headers):
        raise InputError("--confidence is calibrated for analog symbols; the errors of a packet's coding are others")
    from ..metrics.confidence import load_weights

    load_weights(args.model, link.engine.encoder_id)


def tell_confidence(
    args,
    link: "Link",
    arrivals: "Sequence[tuple[Received | bytes, Header]]",
    image: "np.ndarray",
    output: Path,
    path: Path,
) -> None:
    """Write the map of a received picture to `path`, and with --json a line of numbers to stdout."""
    from ..images import encode
    from ..metrics.confidence import expected_error, figures, heat_map, load_weights
    from ..modulation.modems import demodulate
    from .reports import as_json

    weights = load_weights(args.model, link.engine.encoder_id)
    errors = expected_error(image, *demodulate(link.modems, arrivals), link.engine, weights)
    sides = image.shape[-2], image.shape[-1]
    write_bytes(path, encode(heat_map(errors, sides), path.suffix))
    if args.json:
        row = {"picture": str(output), "map": str(path), **figures(errors)}
        print(as_json(row), file=sys.stderr if output == STDIO else sys.stdout, flush=True)
