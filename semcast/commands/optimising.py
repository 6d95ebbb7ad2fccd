"""`--optimise` of `send` and `run`: what it needs, and what it does not go with."""

from typing import TYPE_CHECKING

from ..cascade.models import find_model
from ..errors import InputError, require
from ..header import BASE

if TYPE_CHECKING:
    import numpy as np

EXCLUDED = ("uses", "seconds", "quality", "reply")  # options that choose other rungs than the base


def check_optimise(args) -> None:
    """What can be refused before any work."""
    if not args.optimise:
        return
    require("--optimise", "torch", "torchvision")
    if others := [f"--{name}" for name in EXCLUDED if getattr(args, name, None) is not None]:
        raise InputError(f"--optimise is for the whole base, rungs {BASE[0]} to {BASE[1]}; leave out {others[0]}")
    if args.snr is None:
        raise InputError("--optimise holds for an SNR; give --snr DB with it")
    if args.engine == "onnx":
        raise InputError("--optimise needs gradients, which the engine onnx has not; leave out --engine")
    if args.compile:
        raise InputError(
            "--optimise runs the networks with gradients, for which nothing is compiled; leave out --compile"
        )
    from ..transmitter import check_optimised

    check_optimised(args.mode, args.rungs or BASE, args.snr, find_model(args.model).config)


def check_optimised_picture(args, image: "np.ndarray") -> None:
    """Refuse a picture [1, 3, H, W] that is too large, before the networks are loaded."""
    if args.optimise:
        from ..transmitter import check_optimised_sides

        check_optimised_sides(*image.shape[-2:])
