"""Reading and writing files. Files are written atomically, and tensors are stored without pickle."""

import math
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STDIO = Path("-")  # stdin to read, stdout to write
WRITTEN = (".avif", ".jpeg", ".jpg", ".png", ".webp")  # suffixes of pictures that `images.encode` knows
NAME_BYTES = 255  # of a file name, on common systems
BINARY = getattr(os, "O_BINARY", 0)  # Windows


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside `path` and then rename it, so that a full disk or an interrupt leaves no partial file.

    A new file gets the rights that the user's umask leaves, an existing one keeps its own; a link is followed. The path
    "-" is stdout.

    Raises:
        InputError: the folder is missing or not writable, `path` is not an ordinary file, or the disk is full.
    """
    path, partial = Path(path), None
    try:
        if path == STDIO:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        if path.exists() and not path.is_file():  # the rename would replace even /dev/null
            raise InputError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'not a file'}")
        target = Path(os.path.realpath(path))
        # A short name of its own, for a file name may have 255 bytes already.
        partial = target.with_name(f".semcast-{secrets.token_hex(6)}")
        with open(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | BINARY, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # so that power lost after the rename costs nothing either
        if target.exists():
            os.chmod(partial, target.stat().st_mode & 0o7777)
        os.replace(partial, target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if partial and partial.exists():
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text atomically. Unlike `write_bytes`, it raises OSError."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def read_bytes(path: Path, size_max: int, kind: str) -> bytes:
    """Read an ordinary file of at most `size_max` bytes, or stdin if the path is "-". The size is checked first.

    Args:
        kind: what the file should be, for the messages: "picture", "frame".
    Raises:
        InputError: it is missing, a folder or a device (which may never end), too large, or unreadable.
    """
    check_file(path, kind, size_max)
    try:
        if path != STDIO:
            return path.read_bytes()
        data = sys.stdin.buffer.read(size_max + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > size_max:
        raise InputError(f"stdin has more than {size_max} bytes; that is the limit for a {kind}")
    return data


def check_file(path: Path, kind: str, size_max: float = math.inf) -> None:
    """Make the checks of `read_bytes` without reading the file."""
    if path == STDIO:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(f"- reads a {kind} from stdin, and nothing comes from there; name a file, or use a pipe")
        return
    if re.match(r"(https?|ftp|s3|gs):/", str(path)):
        raise InputError(f"{path} is an address; semcast reads files, so fetch it first (curl -O ...)")
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not a file'}; name a {kind}")
    if size_bytes > size_max:
        raise InputError(f"{path} has {size_bytes} bytes; the limit for a {kind} is {size_max}")


def check_output(path: Path, inputs: Sequence[Path] = (), force: bool = False) -> None:
    """Call it before minutes of work, not after.

    Raises:
        InputError: no file can be written to `path`, it is one of the `inputs`, or it exists and `force` is not set.
    """
    if path == STDIO:
        return
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if len(os.fsencode(path.name)) > NAME_BYTES:
        raise InputError(f"cannot write {path}: a file name has at most {NAME_BYTES} bytes")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    if not path.exists():
        return
    if any(file.exists() and path.samefile(file) for file in inputs if file != STDIO):
        raise InputError(f"{path} is an input and would be overwritten; choose another name")
    if not force and path.is_file():
        raise InputError(f"{path} exists; choose another name, or --force to replace it")


def check_suffix(path: Path) -> None:
    """Raise InputError unless pictures are written in the format of this suffix; call it before minutes of work."""
    if path != STDIO and path.suffix.lower() not in WRITTEN:
        *most, last = WRITTEN
        raise InputError(f"cannot write {path}: pictures are written as {', '.join(most)} or {last}")


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, unless they exist. Raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from None
    return path


def cache_folder() -> Path:
    """The user's cache folder. For a user without a home it is one that cannot exist, so that nothing is found in it."""
    if given := os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA"):
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor an entry in the system's list of users
        return Path(os.devnull) / "no home folder, set SEMCAST_HOME"


KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "|i1", "U8": "|u1"}  # numpy's


def load_arrays(path: Path) -> "dict[str, np.ndarray]":
    """Load a safetensors file as numpy arrays; bfloat16, which numpy lacks, becomes float32.

    Raises:
        InputError: the file is missing or damaged, or holds numbers of another kind, or NaN.
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
        if flat.dtype.kind == "f" and not np.isfinite(flat).all():  # every picture would be black
            raise InputError(f"{path}: {name} holds NaN or infinite values; fetch the file again, or train it anew")
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
