"""Reading and writing files. Files are written atomically, and tensors are stored without pickle."""

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside `path` and then rename it, so that a full disk or an interrupt leaves no partial file.

    Raises:
        InputError: the folder is missing or not writable, `path` is not an ordinary file, or the disk is full.
    """
    path, partial = Path(path), None
    try:
        if path.exists() and not path.is_file():  # the rename would replace even /dev/null
            raise InputError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'not a file'}")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            partial = file.name
            file.write(data)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if partial and os.path.exists(partial):
            os.unlink(partial)


def write_text(path: Path, text: str) -> None:
    """Write text atomically. Unlike `write_bytes`, it raises OSError."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def read_bytes(path: Path, size_max: int, kind: str) -> bytes:
    """Read an ordinary file of at most `size_max` bytes. The size is checked before reading.

    Args:
        kind: what the file should be, for the messages: "picture", "frame".
    Raises:
        InputError: it is missing, a folder or a device (which may never end), too large, or unreadable.
    """
    check_file(path, kind, size_max)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def check_file(path: Path, kind: str, size_max: float = math.inf) -> None:
    """Make the checks of `read_bytes` without reading the file."""
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not a file'}; name a {kind}")
    if size_bytes > size_max:
        raise InputError(f"{path} has {size_bytes} bytes; the limit for a {kind} is {size_max}")


def check_output(path: Path) -> None:
    """Raise InputError if no file can be written to `path`; call it before minutes of work, not after."""
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, unless they exist. Raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from None
    return path


KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "|i1", "U8": "|u1"}  # numpy's


def load_arrays(path: Path) -> "dict[str, np.ndarray]":
    """Load a safetensors file as numpy arrays; bfloat16, which numpy lacks, becomes float32.

    Raises:
        InputError: the file is missing or damaged, or holds numbers of another kind.
    """
    import numpy as np
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    arrays = {}
    for name, entry in found:
        if entry["dtype"] == "BF16":
            flat = (np.frombuffer(entry["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] in KINDS:
            flat = np.frombuffer(entry["data"], KINDS[entry["dtype"]])
        else:
            raise InputError(f"{path}: {name} holds {entry['dtype']}, which is not read")
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """Load a safetensors file. Tensors are memory-mapped: they take memory only when they are used."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def save_tensors(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    """Write a safetensors file, atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

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
