"""A model on disk: a folder with config.json and one safetensors file a network. Never pickle."""

import hashlib
import json
import os
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import InputError
from .model import Cascade, ModelConfig

COUNT_MAX = 100  # blocks and repeats; a file that asks for more is no model
NETWORKS = ("encoder", "stage_b", "stage_a")


def save_model(cascade: Cascade, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and the three networks. Vectors (BatchNorm statistics, biases) stay float32 in any dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        tensors = {k: _stored(v, dtype) for k, v in getattr(cascade, name).state_dict().items()}
        save_tensors(tensors, folder / f"{name}.safetensors")
    save_config(cascade.config, folder)


def save_config(config: ModelConfig, folder: Path) -> None:
    write_text(folder / "config.json", json.dumps(asdict(config), indent=1) + "\n")


def load_config(folder: Path) -> ModelConfig:
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"no model in {folder}: config.json is missing; `semcast models` lists what there is") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    try:
        config = _from_dict(ModelConfig, values)
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path} is no model description: {error}") from None
    b = config.stage_b
    rules = [
        ("prediction", config.prediction in ("epsilon", "x0", "v")),
        ("steps", 1 <= config.steps <= 1000),
        ("factor", 0.5 <= config.factor <= 1),
        ("stage_a", 1 <= config.stage_a.bottleneck_blocks <= COUNT_MAX),
        ("stage_b", max((*b.down_blocks, *b.up_blocks, *b.up_repeats, b.code_unfold), default=0) <= COUNT_MAX),
        ("encoder", max((stage[-1] for stage in config.encoder.stages), default=0) <= COUNT_MAX),
    ]
    if bad := [f"{name} = {getattr(config, name)!r}" for name, fine in rules if not fine]:
        raise InputError(f"{path} has impossible settings: {', '.join(bad)}")
    return config


def load_cascade(folder: Path, dtype: torch.dtype = torch.float32) -> Cascade:
    """The model in `folder`, in evaluation mode, without gradients. Stage B and Stage A in `dtype`, the encoder in float32.

    What the file holds in that precision already is not copied but mapped: it takes memory when it is used.

    Raises:
        InputError: a file is missing or damaged, or its tensors do not fit config.json (the first wrong key is named).
    """
    config = load_config(folder)
    try:
        with torch.device("meta"):
            cascade = Cascade(config)
    except Exception as error:  # layers refuse impossible widths and kinds in many ways
        raise InputError(f"{folder}/config.json describes no network: {error}") from None
    for name in NETWORKS:
        network = getattr(cascade, name)
        tensors = load_tensors(Path(folder) / f"{name}.safetensors")
        check_keys(network, tensors, f"{folder}/{name}.safetensors")
        kind = torch.float32 if name == "encoder" else dtype
        network.load_state_dict({k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()}, assign=True)
    return cascade.eval().requires_grad_(False)


def check_keys(network: nn.Module, tensors: dict, where: str, cause: str = "it belongs to another network") -> None:
    expected = network.state_dict()
    for kind, keys in (("lacks", expected.keys() - tensors.keys()), ("has the unknown", tensors.keys() - expected.keys())):
        if keys:
            raise InputError(f"{where} {kind} tensor {min(keys)} ({len(keys)} such); {cause}")
    for key, tensor in expected.items():
        if tensor.shape != tensors[key].shape:
            raise InputError(f"{where}: {key} is {list(tensors[key].shape)}, expected {list(tensor.shape)}; {cause}")
        if tensor.is_floating_point() != tensors[key].is_floating_point():
            raise InputError(f"{where}: {key} holds {tensors[key].dtype}, expected {tensor.dtype}")


def code_id(encoder: nn.Module) -> int:
    """16 bits that name an encoder: sender and receiver must agree on it, and on nothing else of a model."""
    return int(fingerprint(encoder)[:4], 16)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's parameters and statistics, as bfloat16: the same for its file in either precision."""
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Atomic: the file is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error}") from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Atomic, as `save_tensors`."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.squeeze().ndim >= 2 else tensor


def _from_dict(cls, values: dict):
    """Unknown keys and wrong types are errors, so a misspelt or newer file never half-loads. Lists become tuples."""
    known = {field.name: field for field in fields(cls)}
    if unknown := sorted(set(values) - set(known)):
        raise TypeError(f"unknown keys {', '.join(unknown)}")
    nested = {name: field.default_factory for name, field in known.items() if callable(field.default_factory)}
    made = {k: _from_dict(nested[k], v) if is_dataclass(nested.get(k)) else _tuples(v) for k, v in values.items()}
    if wrong := [f"{k} = {v!r}" for k, v in made.items() if not isinstance(v, (int, float) if known[k].type is float else known[k].type)]:
        raise TypeError(f"wrong type of {', '.join(wrong)}")
    return cls(**made)


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
