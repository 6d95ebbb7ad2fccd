"""An engine runs the networks of one model. Between the networks there are only numpy arrays.

`onnx_engine` uses ONNX Runtime and needs no torch; `torch_engine` is for GPUs and the official networks. A model's files
are the same for both.
"""

import os
from contextlib import AbstractContextManager
from ctypes.util import find_library
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, missing, require
from .config import ENGINES, ModelConfig
from .models import find_model


class Engine(Protocol):
    """The networks of a model. All arrays are float32."""

    config: ModelConfig

    @property
    def encoder_id(self) -> int:
        """Which encoder made Z (`fingerprint.encoder_id`)."""
        ...

    def load(self, layers: bool = True) -> None:
        """Load the networks now, not when they are first needed, so that a damaged file is known before any work.

        layers: those of the layers above Z too.
        """
        ...

    def encode(self, image: np.ndarray) -> np.ndarray:
        """image [B, 3, H, W] in [0, 1], sides multiples of 32 -> Z [B, 16, H/32, W/32]."""
        ...

    def sampling(self) -> AbstractContextManager:
        """A context for the calls of `map_z` and `step` for one picture; in it, Stage B stays where it runs."""
        ...

    def map_z(self, z: np.ndarray, noise: np.ndarray | None, size: tuple[int, int]) -> Any:
        """As `denoiser.StageBCalls.map_z`; what it returns is for `step` of the same engine."""
        ...

    def step(self, x: np.ndarray, r: np.ndarray, mapped: Any, sca: np.ndarray | None) -> np.ndarray:
        """As `denoiser.StageBCalls.step`."""
        ...

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """latent [B, 4, h, w] -> image [B, 3, 4h, 4w], about [0, 1] but not clamped."""
        ...

    def encode_layers(self, image: np.ndarray) -> list[np.ndarray]:
        """image [B, 3, H, W] -> the layers above Z, [B, 16, H/16, W/16] and [B, 16, H/8, W/8]."""
        ...

    def enhance(self, base: np.ndarray, known: list[np.ndarray]) -> np.ndarray:
        """base picture [B, 3, H, W] and, of each layer, estimate and noise [B, 32, h, w] -> a better picture."""
        ...

    def restore(self, base: np.ndarray, draft: np.ndarray, bits_per_pixel: float) -> np.ndarray:
        """base picture and that of a packet, [1, 3, H, W] each, and what the packet took -> a better picture."""
        ...


def load_model(
    name_or_folder: str | Path = "small",
    device: str = "auto",
    dtype: str = "auto",
    low_memory: bool = False,
    compile: bool = False,
    engine: str = "auto",
) -> Engine:
    """Load a model by name ("small"), by the folder that holds its config.json and weights, or by "module:NAME".

    Args:
        device: "cpu", "cuda", "cuda:1" ..., or "auto": the GPU where there is one and torch is installed. All but the
            CPU need torch, and so do the next three arguments.
        dtype: precision of Stage B and Stage A: "float32", "bfloat16", or "auto", which is bfloat16 where the device
            computes in it. The encoder always runs in float32.
        low_memory: keep the networks in main memory, and each on the device only while it runs.
        compile: see `loading.compile_networks`.
        engine: "onnx", "torch", or "auto".
    Raises:
        InputError: there is no such model, device or dtype; the weights are missing or damaged; or torch is not installed.
    """
    folder = find_model(name_or_folder).folder
    assert folder is not None  # `find_model` refuses a model that has not been fetched
    if device == "auto" and not (has_nvidia() and not missing("torch")):
        device = "cpu"
    if pick_engine(engine, device != "cpu" or dtype == "bfloat16" or low_memory or compile) == "onnx":
        from .onnx_engine import OnnxEngine

        return OnnxEngine(folder)
    from .loading import load_torch
    from .torch_engine import TorchEngine

    return TorchEngine(load_torch(folder, device, dtype, low_memory, compile))


def pick_engine(engine: str, wants_torch: bool) -> str:
    """ "auto" is torch where a setting asks for it, or the processor computes in bf16; else ONNX Runtime."""
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")
    if engine == "onnx" and wants_torch:
        raise InputError(
            "the engine onnx runs on the CPU in float32; leave out --engine, or else --device and its like"
        )
    if engine == "torch" or wants_torch:
        require("the engine torch", "torch", "torchvision")
        return "torch"
    return "torch" if engine == "auto" and has_bf16() and not missing("torch", "torchvision") else "onnx"


def has_nvidia() -> bool:
    """Whether there seems to be an NVIDIA GPU; asking torch takes seconds."""
    return Path("/dev/nvidiactl").exists() or (os.name == "nt" and find_library("nvcuda") is not None)


def has_bf16() -> bool:
    """Whether this processor multiplies in bf16, where torch is faster than ONNX Runtime in float32; known on Linux."""
    try:
        return bool({"avx512_bf16", "amx_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False
