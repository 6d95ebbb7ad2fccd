"""The ladder of rungs: which to send, and one picture from several transmissions of its rungs."""

from itertools import accumulate

import numpy as np

from ..errors import InputError
from ..header import BASE, LAYER_RUNGS, Header
from .analog import Estimate

CLEAN = 1e-6  # noise below which an estimate counts as exact


def rungs_within(uses: int, header: Header, first: int = 1, top: int = 3 * LAYER_RUNGS) -> tuple[int, int]:
    """The run of rungs from `first` on that is longest within so many channel uses.

    Raises:
        InputError: there are too few for one rung.
    """
    sizes = header.rung_uses[first - 1 : top]
    count = sum(total <= uses for total in accumulate(sizes))
    if not count:
        least = f"{sizes[0]}" if sizes else "none are left"
        raise InputError(f"{uses} channel uses are too few to go on from rung {first}, which needs {least}")
    return first, first + count - 1


def merge(parts: list[tuple[Header, list[Estimate]]]) -> tuple[Header, list[Estimate]]:
    """What several transmissions of one picture say together. Where they say the same, their SNRs add up.

    Raises:
        InputError: they are of different pictures, or none has the beginning.
    """
    headers = [header for header, _ in parts]
    for header in headers[1:]:
        if identity(header) != identity(headers[0]):
            raise InputError("the transmissions are of different pictures, or of different settings; give those of one")
    if min(header.first_rung for header in headers) > BASE[1]:
        raise InputError(f"rungs above {BASE[1]} refine a picture; give the transmission of its first rungs, too")
    if len(parts) == 1:
        return parts[0]
    depth = max(len(layers) for _, layers in parts)
    return headers[0], [sum_up([layers[i] for _, layers in parts if i < len(layers)]) for i in range(depth)]


def identity(header: Header) -> tuple:
    """What all transmissions of one picture have in common."""
    digital = header.mode == "digital"
    return header.encoder_id, header.height, header.width, header.factor, digital, header.short_id


def sum_up(known: list[Estimate]) -> Estimate:
    """Combine MMSE estimates with independent noise: their SNRs, (1 - noise) / noise, add up."""
    noises = [np.clip(noise, CLEAN, 1.0) for _, noise in known]
    snr = np.sum([(1 - noise) / noise for noise in noises], axis=0)
    z = np.sum([estimate / noise for (estimate, _), noise in zip(known, noises)], axis=0)
    return Estimate((z / (1 + snr)).astype(np.float32), (1 / (1 + snr)).astype(np.float32))
