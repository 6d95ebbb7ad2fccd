"""Saving and loading a model in torch: a folder with config.json and one safetensors file per network, never pickle."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..files import load_tensors, save_tensors
from .config import load_config, save_config
from .eight_bit import compressed, expanded
from .model import Cascade


def save_model(cascade: Cascade, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and the networks. Vectors (biases, BatchNorm statistics) stay float32 in any dtype.

    Args:
        dtype: precision of matrices and kernels: float32, bfloat16, or int8 with a scale per row (`eight_bit`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in cascade.config.networks:
        state = getattr(cascade, name).state_dict()
        if dtype == torch.int8:
            tensors = {k: torch.from_numpy(np.array(v)) for k, v in compressed(arrays(state)).items()}
        else:
            tensors = {k: _stored(v, dtype) for k, v in state.items()}
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
    for name in config.networks:
        network = getattr(cascade, name)
        tensors = load_weights(Path(folder) / f"{name}.safetensors")
        check_keys(network, tensors, f"{folder}/{name}.safetensors")
        check_finite(tensors, f"{folder}/{name}.safetensors")
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


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights of which one is not a number: every picture would be black. Raises InputError."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{where}: {key} holds NaN or infinite values; fetch the file again, or train it anew")


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; 8-bit weights become float32, others keep their precision and stay memory-mapped."""
    tensors = load_tensors(path)
    if any(tensor.dtype == torch.int8 for tensor in tensors.values()):
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in expanded(arrays(tensors)).items()}
    return tensors


def arrays(tensors: nn.Module | Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A network's tensors, or those given, in numpy; bfloat16 becomes float32."""
    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    kept = {k: v.detach().cpu() for k, v in state.items()}
    return {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in kept.items()}


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.squeeze().ndim >= 2 else tensor
