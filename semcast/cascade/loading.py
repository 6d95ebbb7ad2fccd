"""Loading a model into torch: on which device, in which precision, compiled or not."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Generic, ParamSpec

import torch
from torch import Tensor

from .checkpoint import load_cascade
from .device import pick_device, pick_dtype
from .model import Cascade

P = ParamSpec("P")


def load_torch(
    folder: Path, device: str = "cpu", dtype: str = "auto", low_memory: bool = False, compile: bool = False
) -> Cascade:
    """Load the model in `folder`. Arguments and errors as in `engine.load_model`."""
    device = pick_device(device)
    cascade = load_cascade(folder, pick_dtype(dtype, device))
    if compile:
        compile_networks(cascade)
    return cascade.place(device, low_memory)


def compile_networks(cascade: Cascade) -> None:
    """Compile Stage B's step and Stage A's decoder with torch.compile, on a GPU with CUDA graphs.

    The first picture of each size takes about a minute, later ones are faster. Where compilation fails, one line on
    stderr says so and the networks run as they are.
    """
    cascade.stage_b.step = Compiled(cascade.stage_b.step)
    cascade.stage_a.decode = Compiled(cascade.stage_a.decode)


class Compiled(Generic[P]):
    """A compiled function, which calls the plain one from the first failure on."""

    def __init__(self, function: Callable[P, Tensor]):
        self.function, self.gpu, self.failed = function, torch.cuda.is_available(), False
        self.fast = torch.compile(function, mode="reduce-overhead" if self.gpu else "default", dynamic=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        if not self.failed:
            try:
                if not self.gpu:
                    return self.fast(*args, **kwargs)
                torch.compiler.cudagraph_mark_step_begin()
                return self.fast(*args, **kwargs).clone()  # the graph writes its next result into the same memory
            except Exception as error:  # no compiler, no backend, an unsupported operator
                self.failed = True
                reason = str(error).strip().splitlines()[0]
                print(f"semcast: not compiled ({reason}); going on without", file=sys.stderr)
        return self.function(*args, **kwargs)
