"""The models semcast knows by name, and loading one by name or folder."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from .cascade.checkpoint import NETWORKS, load_cascade, load_config
from .cascade.model import Cascade, ModelConfig, small_config
from .cascade.stage_b import STAGE_B_BIG, STAGE_B_LITE
from .errors import InputError

WEIGHTS = Path(__file__).parent / "weights"
STABILITY_LICENCE = "Stability AI Non-Commercial Research Community License (research only)"


@dataclass(frozen=True)
class Known:
    config: ModelConfig
    folder: Path | None  # None: neither shipped nor fetched
    size_bytes: int  # of the weights: measured where they are here, else of the official bf16 files
    about: str


def _official(name: str, stage_b) -> ModelConfig:
    return ModelConfig(name=name, licence=STABILITY_LICENCE, guidance=1.1, stage_b=stage_b)


OFFICIAL = {  # fetched by `hub.fetch`
    "stable-cascade-lite": _official("stable-cascade-lite", STAGE_B_LITE),
    "stable-cascade-big": _official("stable-cascade-big", STAGE_B_BIG),
}


def home() -> Path:
    """Where fetched models live: $SEMCAST_HOME, else `semcast` in the user's cache folder."""
    if given := os.environ.get("SEMCAST_HOME"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache").expanduser() / "semcast"


def known_models() -> dict[str, Known]:
    small = WEIGHTS / "small"
    return {
        "small": Known(small_config(), small, _size(small), "the default: trained by us, shipped, for a CPU"),
        "stable-cascade-lite": _fetched("stable-cascade-lite", 1_555_000_000, "official, the paper's size, for a GPU"),
        "stable-cascade-big": _fetched("stable-cascade-big", 3_285_000_000, "official, for a GPU"),
    }


def _fetched(name: str, size_bytes: int, about: str) -> Known:
    folder = home() / "models" / name
    here = (folder / "config.json").is_file()
    return Known(OFFICIAL[name], folder if here else None, _size(folder) if here else size_bytes, about)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def load_model(
    name_or_folder: str | Path = "small", device: str = "cpu", dtype: str = "auto", low_memory: bool = False, compile: bool = False
) -> Cascade:
    """A model by name ("small") or by the folder that holds its config.json and weights.

    Args:
        device: "cpu", "cuda", "cuda:1" ...
        dtype: of Stage B and Stage A: "float32", "bfloat16", or "auto": bfloat16 where the device computes in it.
            The encoder always runs in float32.
        compile: see `compile_networks`.
        low_memory: the networks stay in main memory, and each is on the device only while it runs.
    Raises:
        InputError: no such model, device or dtype; missing or damaged weights.
    """
    known = known_models()
    if str(name_or_folder) in known:
        folder = known[str(name_or_folder)].folder
        if folder is None:
            command = f"semcast models fetch {name_or_folder}"
            raise InputError(f"model {name_or_folder!r} is not here; its weights have to be fetched first: `{command}`")
    else:
        folder = Path(name_or_folder)
        if not folder.is_dir():
            raise InputError(f"no model {str(name_or_folder)!r}: it is neither a folder nor one of {', '.join(known)}")
    check_device(device)
    cascade = load_cascade(folder, pick_dtype(dtype, device))
    if compile:
        compile_networks(cascade)
    return cascade if low_memory else cascade.to(device)


def compile_networks(cascade: Cascade) -> None:
    """torch.compile for Stage B's step and Stage A's decoder, with CUDA graphs on a GPU: a minute at the first picture of a
    size, faster from then on. Where the compiler fails, one line on stderr says so and the plain functions go on."""
    cascade.stage_b.step = _compiled(cascade.stage_b.step)
    cascade.stage_a.decode = _compiled(cascade.stage_a.decode)


def _compiled(function):
    gpu = torch.cuda.is_available()
    fast = torch.compile(function, mode="reduce-overhead" if gpu else "default", dynamic=False)

    def call(*args):
        if not call.failed:
            try:
                if gpu:
                    torch.compiler.cudagraph_mark_step_begin()
                return fast(*args).clone() if gpu else fast(*args)  # a graph writes its next result into the same memory
            except Exception as error:  # no compiler, no backend, an operator it does not know
                call.failed = True
                print(f"semcast: not compiled ({str(error).strip().splitlines()[0]}); going on without", file=sys.stderr)
        return function(*args)

    call.failed = False
    return call


def check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).item()  # "meta" holds no values
    except Exception as error:  # torch raises RuntimeError, AssertionError, NotImplementedError ...
        raise InputError(f"device {device!r} cannot be used: {str(error).splitlines()[0].split('. ')[0]}") from None


def pick_device(device: str) -> str:
    """ "auto": the GPU where there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    if dtype == "auto":
        dtype = "bfloat16" if has_bf16(device) else "float32"
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype {dtype!r} is not one of auto, float32, bfloat16")
    return getattr(torch, dtype)


def has_bf16(device: str) -> bool:
    """Whether the device multiplies in bf16 (a CPU: AVX-512 BF16 or AMX); emulating it would be slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())


def describe(name: str) -> dict:
    """Name, parts with parameter counts, size, licence, and whether the weights are here. Plain integers."""
    model = known_models()[name]
    config = load_config(model.folder) if model.folder else model.config
    with torch.device("meta"):
        cascade = Cascade(config)
    parts = {part: sum(p.numel() for p in getattr(cascade, part).parameters()) for part in NETWORKS}
    return {
        "name": name,
        "parts": parts,
        "parameters": sum(parts.values()),
        "size_bytes": model.size_bytes,
        "licence": config.licence,
        "fetched": model.folder is not None,
        "about": model.about,
    }
