"""Several processes that share each batch of a training, as torchrun and `accelerate launch` start them."""

import os
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from .errors import InputError
from .presets import TrainConfig


def start_processes(device: str) -> tuple[int, int]:
    """(rank, number of processes), as torchrun and `accelerate launch` set them in the environment."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1 and not dist.is_initialized():
        if device.startswith("cuda"):
            torch.cuda.set_device(device)  # NCCL gathers objects through the current device
        hours = timedelta(hours=12)  # one process may fill a cache of latents while the others wait
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=hours)
    return (dist.get_rank(), processes) if processes > 1 else (0, 1)


def wait_for_all(processes: int) -> None:
    if processes > 1:
        dist.barrier()


def shares(config: TrainConfig, rank: int, processes: int) -> list[slice]:
    """Rows of the batch that process `rank` works on, one slice for each part.

    Raises:
        InputError: the batch cannot be cut like this.
    """
    if config.batch % (processes * config.accumulate):
        raise InputError(f"batch {config.batch} cannot be shared by {processes} processes in {config.accumulate} parts each")
    size = config.batch // (processes * config.accumulate)
    first = rank * config.accumulate
    return [slice((first + i) * size, (first + i + 1) * size) for i in range(config.accumulate)]


def gather(found: list[dict[str, Tensor]], parameters, processes: int) -> dict[str, Tensor]:
    """Average gradients over processes; put the terms of all parts and processes together, in the batch's order.

    Args:
        found: of each part of this process, the terms of its loss.
        parameters: whose `grad` is averaged.
    Returns:
        Every term, a flat vector on the CPU.
    """
    terms = {k: torch.cat([part[k].reshape(-1).cpu() for part in found]) for k in found[0]}
    if processes > 1:
        for p in parameters:
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= processes
        everyone = [None] * processes
        dist.all_gather_object(everyone, terms)
        terms = {k: torch.cat([each[k] for each in everyone]) for k in terms}
    return terms
