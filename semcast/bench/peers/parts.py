"""The networks of the rivals, and their files of weights in 8 bits: NAME.safetensors, which also says the network's shape.

They lie in the folder that the environment variable SEMCAST_PEERS names, or else in the user's, or else in the package.
"""

import functools
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from ...cascade.checkpoint import arrays, check_keys, load_weights
from ...cascade.config import StageAConfig, small_config
from ...cascade.eight_bit import compressed
from ...cascade.models import home
from ...cascade.stage_a import StageA
from ...errors import InputError
from ...files import write_bytes
from .autoencoder import Autoencoder, AutoencoderConfig
from .unet import UNet, UNetConfig

SHIPPED = Path(__file__).parents[1] / "weights"
CLASS_MAPS = 13  # CamVid's 11 classes, void, and boundaries


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network that is trained by itself, after those that it needs."""

    about: str
    config: StageAConfig | AutoencoderConfig | UNetConfig
    latents: str = ""  # the part whose latents it learns from
    labelled: bool = False  # learns from pictures with labels

    def build(self) -> nn.Module:
        return build(self.config)


STAGE_A = "stage_a"
PARTS = {  # in the order in which they are trained
    STAGE_A: Part(about="pixels to latents of stride 4: semcast's Stage A, as it is", config=small_config().stage_a),
    "ae8": Part(
        about="autoencoder of Img2Img-SC and GESCO: stride 8, 4 channels",
        config=AutoencoderConfig(widths=(160,), channels=4, depth=2),
        latents=STAGE_A,
    ),
    "ae16": Part(
        about="autoencoder of DIFFSC and CASC as published: [8, 32, 32] for 512x512",
        config=AutoencoderConfig(widths=(128, 192), channels=8, through_channel=True),
        latents=STAGE_A,
    ),
    "ae32": Part(
        about="autoencoder of DIFFSC and CASC repaired: [9, 16, 16] for 512x512",
        config=AutoencoderConfig(widths=(96, 128, 192), channels=9, through_channel=True),
        latents=STAGE_A,
    ),
    "img2img": Part(about="prior of Img2Img-SC", config=UNetConfig(channels=4, patch=2), latents="ae8"),
    "gesco": Part(
        about="GESCO's painter of class maps",
        config=UNetConfig(channels=4, patch=2, widths=(112, 176, 240), maps=CLASS_MAPS),
        latents="ae8",
        labelled=True,
    ),
    "diffsc16": Part(about="DIFFSC as published", config=UNetConfig(channels=8, attentive=True), latents="ae16"),
    "diffsc32": Part(about="DIFFSC repaired", config=UNetConfig(channels=9, attentive=True), latents="ae32"),
    "casc16": Part(
        about="CASC as published",
        config=UNetConfig(channels=8, widths=(112, 160, 224), received=True),
        latents="ae16",
    ),
    "casc32": Part(
        about="CASC repaired",
        config=UNetConfig(channels=9, widths=(112, 160, 224), received=True),
        latents="ae32",
    ),
}
MAP_CODER = "maps"  # the file with the counts of `maps.py`, made from labels


def build(config: StageAConfig | AutoencoderConfig | UNetConfig) -> nn.Module:
    if isinstance(config, StageAConfig):
        return StageA(config)
    return Autoencoder(config) if isinstance(config, AutoencoderConfig) else UNet(config)


def weights_path(name: str, folder: Path | None = None) -> Path:
    """The file of a part, in a folder or where it is looked for. If there is none, where it is looked for first."""
    given = folder or os.environ.get("SEMCAST_PEERS")
    places = [Path(given)] if given else [home() / "peers", SHIPPED]
    paths = [place / f"{name}.safetensors" for place in places]
    return next((path for path in paths if path.exists()), paths[0])


def check_parts(*names: str, folder: Path | None = None) -> None:
    """Raise InputError, with the command that makes it, if a part has no weights."""
    for name in names:
        if not (path := weights_path(name, folder)).exists():
            raise InputError(
                f"{path} is missing: `runs/peers.sh PHOTOS LABELS {path.parent}` trains the rivals' networks, "
                "and SEMCAST_PEERS names their folder"
            )


def save_part(network: nn.Module, name: str, path: Path, facts: dict) -> None:
    """Write atomically, in 8 bits. facts: how it was trained, for `training_record`."""
    shape = json.dumps(asdict(network.config))  # type: ignore[arg-type, call-overload]
    metadata = {"part": name, "config": shape, "training": json.dumps(facts)}
    write_bytes(path, save(compressed(arrays(network)), metadata))


def training_record(name: str, folder: Path | None = None) -> dict:
    """How the weights of a part were trained, as train_peers.py wrote it into their file, and the file's hash.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = weights_path(name, folder)
    check_parts(name, folder=folder)
    try:
        return {"weights": file_hash(path), **json.loads(read_metadata(path)["training"])}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} does not say how it was trained; train it anew") from None


def load_part(name: str, device: str = "cpu", folder: Path | None = None) -> nn.Module:
    """A part's network in evaluation mode, float32.

    Raises:
        InputError: the file is missing or damaged, or holds another part.
    """
    path = weights_path(name, folder)
    check_parts(name, folder=folder)
    return _load(name, path, device, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load(name: str, path: Path, device: str, written_ns: int) -> nn.Module:
    weights = load_weights(path)
    metadata = read_metadata(path)
    if metadata.get("part") != name:
        raise InputError(f"{path} says {metadata.get('part', 'no part')}; expected weights of {name}")
    kind = type(PARTS[name].config)
    try:
        said = json.loads(metadata["config"])
        shape: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in said.items()}
        network = build(kind(**shape))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} has no shape of a network ({error}); make it anew") from None
    check_keys(network, weights, str(path))
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)


def read_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def parts_version(*names: str) -> str:
    """The parts and the hashes of their weights."""
    return ", ".join(f"{name} {file_hash(weights_path(name))}" for name in names)


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "without weights"
