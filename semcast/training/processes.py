"""Training in several processes that share each batch, started by torchrun or `accelerate launch`."""

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from ..cascade.device import pick_device
from ..errors import InputError
from .config import TrainConfig


def own_device(device: str) -> str:
    """As `pick_device`, but each of several processes on a machine gets its own GPU."""
    device = pick_device(device)
    return (
        pick_device(f"cuda:{os.environ['LOCAL_RANK']}") if device == "cuda" and "LOCAL_RANK" in os.environ else device
    )


def writes() -> bool:
    """Whether this process is the one that prints and writes files."""
    return os.environ.get("RANK", "0") == "0"


def start_processes(device: str) -> tuple[int, int]:
    """Join the other processes and return (rank, number of processes), which the launcher sets in the environment."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1 and not dist.is_initialized():
        if device.startswith("cuda"):
            torch.cuda.set_device(device)  # NCCL gathers objects through the current device
        hours = timedelta(hours=12)  # one process may fill a cache of latents while the others wait
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=hours)
    return (dist.get_rank(), processes) if processes > 1 else (0, 1)


def wait_for_all(processes: int) -> None:
    """Wait until every process has arrived here."""
    if processes > 1:
        dist.barrier()


def shares(config: TrainConfig, rank: int, processes: int) -> list[slice]:
    """Rows of the batch that process `rank` works on, one slice for each of `config.accumulate` parts.

    Raises:
        InputError: the batch cannot be divided evenly.
    """
    if config.batch % (processes * config.accumulate):
        raise InputError(
            f"batch {config.batch} cannot be shared by {processes} processes in {config.accumulate} parts each"
        )
    size = config.batch // (processes * config.accumulate)
    first = rank * config.accumulate
    return [slice((first + i) * size, (first + i + 1) * size) for i in range(config.accumulate)]


def gather(found: list[dict[str, Tensor]], parameters: Iterable[Tensor], processes: int) -> dict[str, Tensor]:
    """Average gradients over processes, and concatenate the terms of all parts and processes in the batch's order.

    Args:
        found: the terms of the loss for each part of this process.
        parameters: their `grad` is averaged.

    Returns:
        Each term as a flat vector on the CPU.
    """
    terms = {k: torch.cat([part[k].reshape(-1).cpu() for part in found]) for k in found[0]}
    if processes > 1:
        for p in parameters:
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= processes
        everyone: list[dict[str, Tensor]] = [{}] * processes
        dist.all_gather_object(everyone, terms)
        terms = {k: torch.cat([each[k] for each in everyone]) for k in terms}
    return terms
