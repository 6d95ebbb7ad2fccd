"""What the figures of a row depend on: package versions, commit, machine, and the weights of the metrics."""

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from torch import Tensor

from .. import __version__
from ..metrics.segmenter import load_segmenter
from .cost import cpu_name
from .measures import networks


@functools.lru_cache(maxsize=2)
def versions(lpips_folder: Path | None, segmenter: Path | None = None) -> dict[str, str | None]:
    """Everything that the metrics depend on, and the processor, on which the times depend."""
    packages = ("torch", "torchmetrics", "numpy", "pillow")
    lpips, dists, classifier, _ = networks(lpips_folder)
    weights: dict[str, str | None] = {f"lpips_{name}": digest(network.state_dict()) for name, network in lpips.items()}
    weights["dists"] = digest({"alpha": dists.alpha, "beta": dists.beta}) if dists else None
    weights["efficientnet_lite0"] = digest(classifier.state_dict()) if classifier else None
    weights["segmenter"] = digest(load_segmenter(segmenter).state_dict()) if segmenter else None
    named = {package: importlib.metadata.version(package) for package in packages}
    return {
        "semcast": __version__,
        "commit": commit(),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        **named,
        **weights,
    }


def digest(tensors: dict[str, Tensor]) -> str:
    data = b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))
    return hashlib.sha256(data).hexdigest()[:16]


def commit() -> str | None:
    """The commit of the checkout this package runs from, with a + if it was changed; None if it is installed."""
    root = Path(__file__).resolve().parents[2]
    git = lambda *words: subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None
