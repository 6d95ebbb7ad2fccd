"""The models that semcast knows by name. Does not import torch; engine.py loads them."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, load_object
from ..files import cache_folder
from .config import STAGE_B_BIG, STAGE_B_LITE, ModelConfig, StageBConfig, load_config, small_config

WEIGHTS = Path(__file__).parents[1] / "weights"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", ".scale")  # .scale belongs to 8-bit weights
STABILITY_LICENCE = "Stability AI Non-Commercial Research Community License (research only)"


@dataclass(frozen=True)
class Known:
    config: ModelConfig
    folder: Path | None  # None for a model that has not been fetched
    size_bytes: int  # size of the weights: as on the disk, or of the official bf16 files where not fetched
    about: str


def _official(name: str, stage_b: StageBConfig) -> ModelConfig:
    return ModelConfig(name=name, licence=STABILITY_LICENCE, guidance=1.1, stage_b=stage_b)


OFFICIAL = {  # fetched by `hub.fetch`
    "stable-cascade-lite": _official("stable-cascade-lite", STAGE_B_LITE),
    "stable-cascade-big": _official("stable-cascade-big", STAGE_B_BIG),
}

OFFICIAL_PARAMETERS = {  # for `describe` while the files have not been fetched; a test counts them
    "stable-cascade-lite": {"encoder": 20_197_968, "stage_b": 699_471_248, "stage_a": 18_406_894},
    "stable-cascade-big": {"encoder": 20_197_968, "stage_b": 1_562_941_136, "stage_a": 18_406_894},
}


def home() -> Path:
    """The folder of fetched models: $SEMCAST_HOME, or else `semcast` in the user's cache folder."""
    if given := os.environ.get("SEMCAST_HOME"):
        return Path(given).expanduser()
    return cache_folder() / "semcast"


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


def find_model(name: str | Path) -> Known:
    """Find a model by name, by the folder that holds its config.json and weights, or a user's own by "module:NAME".

    Raises:
        InputError: there is no such model, or it has to be fetched first.
    """
    name = str(name)
    if (known := known_models().get(name)) is not None:
        if known.folder is None:
            raise InputError(
                f"model {name!r} is not here; its weights have to be fetched first: `semcast models fetch {name}`"
            )
        return known
    if Path(name).is_dir():
        return Known(load_config(Path(name)), Path(name), _size(Path(name)), "a folder")
    if ":" in name:
        known = load_object(name, Known)
        if known.folder is None:
            raise InputError(f"model {name!r} names no folder with weights")
        return known
    raise InputError(f"no model {name!r}: it is neither a folder nor one of {', '.join(known_models())}")


def describe(name: str) -> dict[str, Any]:
    """Describe a model: parameters by part, size, licence, whether its weights are here. Numbers are plain integers."""
    model = known_models()[name]
    parts = count_parameters(model.folder) if model.folder else OFFICIAL_PARAMETERS[name]
    return {
        "name": name,
        "parts": parts,
        "parameters": sum(parts.values()),
        "size_bytes": model.size_bytes,
        "licence": (load_config(model.folder) if model.folder else model.config).licence,
        "fetched": model.folder is not None,
        "about": model.about,
    }


def count_parameters(folder: Path) -> dict[str, int]:
    """Parameters of each network, read from the headers of the files. BatchNorm statistics do not count."""
    return {part: sum(count_file(folder / f"{part}.safetensors").values()) for part in load_config(folder).networks}


def count_file(path: Path) -> dict[str, int]:
    """Number of elements of each parameter in a safetensors file."""
    with open(path, "rb") as file:  # it starts with 8 bytes, the length of a JSON header
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    parameters = {k: entry for k, entry in header.items() if k != "__metadata__" and not k.endswith(BUFFERS)}
    return {key: math.prod(entry["shape"]) for key, entry in parameters.items()}
