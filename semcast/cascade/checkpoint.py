"""Saving and loading a model: a folder with config.json and one safetensors file per network, never pickle."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..files import load_tensors, save_tensors
from .config import NETWORKS, load_config, save_config
from .eight_bit import compressed, expanded
from .model import Cascade


def save_model(cascade: Cascade, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and the three networks. Vectors (biases, BatchNorm statistics) stay float32 in any dtype.

    Args:
        dtype: precision of matrices and kernels: float32, bfloat16, or int8 with a scale per row (`eight_bit`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        state = getattr(cascade, name).state_dict()
        tensors = compressed(state) if dtype == torch.int8 else {k: _stored(v, dtype) for k, v in state.items()}
        save_tensors(tensors, folder / f"{name}.safetensors")
    save_config(cascade.config, folder)


def load_cascade(folder: Path, dtype: torch.dtype = torch.float32) -> Cascade:
    """Load the model in `folder`, in evaluation mode and without gradients.

    Stage B and Stage A get the precision `dtype`, the encoder float32. Tensors that the file already holds in that
    precision are memory-mapped, not copied: they take memory only when they are used.

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
        tensors = expanded(load_tensors(Path(folder) / f"{name}.safetensors"))
        check_keys(network, tensors, f"{folder}/{name}.safetensors")
        kind = torch.float32 if name == "encoder" else dtype
        state = {k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()}
        network.load_state_dict(state, assign=True)
    return cascade.eval().requires_grad_(False)


def check_keys(
    network: nn.Module, tensors: Mapping[str, Tensor], where: str, cause: str = "it belongs to another network"
) -> None:
    """Check the keys, shapes and kinds (float or integer) of `tensors` against the network's state_dict.

    Raises:
        InputError: the first wrong key; the message starts with `where` (the file) and ends with the likely `cause`.
    """
    expected = network.state_dict()
    lacking, unknown = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    for kind, keys in (("lacks", lacking), ("has the unknown", unknown)):
        if keys:
            raise InputError(f"{where} {kind} tensor {min(keys)} ({len(keys)} such); {cause}")
    for key, tensor in expected.items():
        if tensor.shape != tensors[key].shape:
            raise InputError(f"{where}: {key} is {list(tensors[key].shape)}, expected {list(tensor.shape)}; {cause}")
        if tensor.is_floating_point() != tensors[key].is_floating_point():
            raise InputError(f"{where}: {key} holds {tensors[key].dtype}, expected {tensor.dtype}")


def encoder_id(encoder: nn.Module) -> int:
    """A 16-bit number that identifies an encoder. Sender and receiver need the same encoder, but no other network."""
    return int(fingerprint(encoder)[:4], 16)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's parameters and statistics in bfloat16, so that float32 and bfloat16 files agree."""
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.squeeze().ndim >= 2 else tensor
