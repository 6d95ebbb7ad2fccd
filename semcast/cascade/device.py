"""torch: the device and precision that networks run in, pictures as tensors; and the memory of a process."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..images import to_image

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # from glibc's malloc.h


def pick_device(device: str) -> str:
    """Check a device's name and return it; "auto" becomes "cuda" if there is a GPU, else "cpu".

    Raises:
        InputError: the device cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # fails on "meta", which holds no values
    except Exception as error:  # torch raises RuntimeError, AssertionError, NotImplementedError ...
        raise InputError(f"device {device!r} cannot be used: {str(error).splitlines()[0].split('. ')[0]}") from None
    return device


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    """Check a precision and return it; "auto" becomes bfloat16 if the device multiplies in it, else float32."""
    if dtype == "auto":
        dtype = "bfloat16" if has_bf16(device) else "float32"
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype {dtype!r} is not one of auto, float32, bfloat16")
    return getattr(torch, dtype)


def has_bf16(device: str) -> bool:
    """Whether the device multiplies in bf16, a CPU by AVX-512 BF16 or AMX. Emulated bf16 is slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(to_image(pixels))


@contextmanager
def visiting(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Move a network from main memory to `device` for the duration of the context (`--low-memory`).

    Nothing happens if the network is on a device other than the CPU already.
    """
    if device.type == "cpu" or next(network.parameters()).device.type != "cpu":
        yield
        return
    kept = network.state_dict()  # restored afterwards, so that nothing is copied back
    with torch.inference_mode(False):  # parameters cannot hold tensors made in inference mode
        network.to(device)
    try:
        yield
    finally:
        with torch.inference_mode(False):
            network.load_state_dict(kept, assign=True)


def keep_freed_memory() -> bool:
    """Keep freed memory in the process instead of returning it to the system and faulting it in again.

    glibc maps blocks above 32 MiB from the system and unmaps them when they are freed. LPIPS-VGG and DISTS at 512x512
    spend 2.6 of 9.3 s of processor time on that; peak memory hardly changes. Meant for processes that do nothing but
    compute. Returns whether the C library accepted the settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    settings = ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, 2**31 - 1), (M_MMAP_MAX, 0))
    return all(mallopt(name, value) for name, value in settings)
