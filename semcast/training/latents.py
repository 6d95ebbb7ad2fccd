"""Latents on disk: Z and the Stage A latent of fixed crops, so that training Stage B needs no pictures and no encoder.

A cache folder holds key.json, which identifies networks, pictures and settings, and <picture>-<crop>.safetensors with
z [16, h, w] float32 and latent [4, S/4, S/4] float16. An interrupted `fill` continues where it stopped.
"""

import hashlib
import json
from pathlib import Path

import torch
from numpy.random import Generator
from torch import Tensor
from tqdm import tqdm

from ..cascade.checkpoint import arrays
from ..cascade.fingerprint import fingerprint
from ..cascade.model import Cascade
from ..errors import InputError
from ..files import load_tensors, save_tensors, write_text
from ..transmitter import encode
from .config import TrainConfig
from .data import Photos, step_generator


@torch.no_grad()
def fill(
    folder: Path, cascade: Cascade, photos: Photos, config: TrainConfig, device: str, progress: bool = True
) -> None:
    """Make the missing files for `config.cache_crops` crops of every picture.

    Raises:
        InputError: the folder holds latents of other networks, pictures or settings.
    """
    names = "\n".join(f"{name} {length}" for name, _, _, length in photos.items)
    key = {
        "encoder": fingerprint(arrays(cascade.encoder)),
        "stage_a": fingerprint(arrays(cascade.stage_a)),
        "scale_factor": cascade.config.stage_a.scale_factor,
        "pictures": hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
        "crop": config.crop,
        "factor": config.factor_min,
        "seed": config.seed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "key.json"
    if path.exists():
        held = json.loads(path.read_text())
        if changed := [name for name in key if held.get(name) != key[name]]:
            raise InputError(
                f"{folder} holds latents of another {', '.join(changed)}; choose another --cache or delete it"
            )
    write_text(path, json.dumps(key, indent=1) + "\n")
    wanted = [(index, crop) for index in range(len(photos)) for crop in range(config.cache_crops)]
    missing = [item for item in wanted if not _file(folder, *item).exists()]
    for index, crop in tqdm(missing, desc="latents", unit="crop", disable=not progress):
        draw = step_generator(config.seed, index, 16 + crop).random(4).tolist()
        pixels = photos.crop(config.crop, index, *draw)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(device).float() / 255
        z, latent = encode(image, cascade.encoder, config.factor_min)[0], cascade.stage_a.encode(image)[0]
        save_tensors({"z": z.float().cpu(), "latent": latent.half().cpu()}, _file(folder, index, crop))


def read(folder: Path, photos: Photos, config: TrainConfig, generator: Generator, rows: slice) -> tuple[Tensor, Tensor]:
    """Read the given rows of a random batch: Z [b, 16, h, w] and latent [b, 4, S/4, S/4], float32."""
    picks = photos.picks(config.batch, generator)
    crops = generator.integers(config.cache_crops, size=config.batch).tolist()
    found = [load_tensors(_file(folder, index, crop)) for index, crop in list(zip(picks, crops))[rows]]
    return torch.stack([f["z"] for f in found]), torch.stack([f["latent"].float() for f in found])


def _file(folder: Path, index: int, crop: int) -> Path:
    return folder / f"{index:07d}-{crop:03d}.safetensors"
