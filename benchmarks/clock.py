"""Times of calls side by side, and what a machine can do."""

import statistics
import time
from typing import Any

import torch

from semcast.cascade.device import has_bf16


def medians(calls: dict, runs: int, device: str, results: dict | None = None) -> dict[Any, float]:
    """Milliseconds of each call, taken in turn, after one round of warm-up."""
    times = {key: [] for key in calls}
    for run in range(runs + 1):
        for key, call in calls.items():
            synchronise(device)
            start = time.perf_counter()
            result = call()
            synchronise(device)
            if run:
                times[key].append((time.perf_counter() - start) * 1e3)
            if results is not None:
                results[key] = result
    return {key: statistics.median(values) for key, values in times.items()}


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matmul_tflops(device: str) -> float:
    """What this machine reaches in one large matrix product, in bf16 where it has it."""
    n = 8192 if device.startswith("cuda") else 1024
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if has_bf16(device) else torch.float32)
    return 2 * n**3 / medians({"t": lambda: a @ a}, 10, device)["t"] / 1e9
