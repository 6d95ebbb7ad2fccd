"""What the rivals' networks learn from: latents of crops of photos, or of labelled pictures, made once.

Latents lie in NAME.latents.safetensors beside the weights, with what they depend on, so that networks for the same
latents share them and a run that goes on need not make them again.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from ...cascade.device import to_tensor
from ...files import load_tensors, write_bytes
from ...metrics.segmenter import Labels
from ...training.data import Photos, step_generator
from .gesco import at_cells, one_hot
from .parts import STAGE_A, file_hash, read_metadata, weights_path
from .pictures import autoencoder, stage_a

CROP = 384  # side of the crops whose latents are kept, in pixels
COUNT = 2048  # crops
Latents = dict[str, Tensor]  # "z" [N, c, h, w] float16 and, of labelled pictures, "maps" [N, 13, h, w] float16


def photo_latents(name: str, photos: Photos, folder: Path, seed: int, device: str, count: int = COUNT) -> Latents:
    """Latents of random crops. name: Stage A's, or an autoencoder's."""
    facts = {"seed": seed, "crop": CROP, "count": count, **photos.fingerprint()}
    batches = tqdm(range(0, count, 8), desc=f"latents {name}", unit="batch", disable=None)

    def make() -> Latents:
        if name == STAGE_A:
            pixels = stage_a(device, folder)
            crops = lambda i: photos.crops(CROP, min(8, count - i), step_generator(seed, i, 16))
            return {"z": torch.cat([pixels.encode(crops(i).to(device)).half().cpu() for i in batches])}
        network, y = autoencoder(name, device, folder), photo_latents(STAGE_A, photos, folder, seed, device, count)["z"]
        return {"z": torch.cat([network.encode(y[i : i + 8].to(device).float()).half().cpu() for i in batches])}

    return _kept(folder / f"{name}.latents.safetensors", name, facts, make)


def labelled_latents(name: str, pairs: list[tuple[np.ndarray, np.ndarray]], folder: Path, device: str) -> Latents:
    """Latents and maps of whole pictures, cut to the rows and columns that all have."""

    def make() -> Latents:
        pixels_of, network = stage_a(device, folder), autoencoder(name, device, folder)
        latents, maps = [], []
        for pixels, classes in tqdm(pairs, desc=f"latents {name}, labelled", unit="picture", disable=None):
            rows, columns = (n // 8 * 8 for n in classes.shape)
            image = to_tensor(np.ascontiguousarray(pixels[:rows, :columns])).to(device)
            latents.append(network.encode(pixels_of.encode(image)).half().cpu())
            maps.append(at_cells(one_hot(classes[:rows, :columns])).half())
        height, width = (min(z.shape[i] for z in latents) for i in (2, 3))
        cut = lambda parts: torch.cat([part[..., :height, :width] for part in parts])
        return {"z": cut(latents), "maps": cut(maps)}

    facts = {"count": len(pairs), "pixels": sum(pixels.size for pixels, _ in pairs)}
    return _kept(folder / f"{name}-labelled.latents.safetensors", name, facts, make)


def labelled_pairs(photos: Photos, labels: Labels) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures uint8 [H, W, 3] that have labels [H, W], and these."""
    chosen = [i for i, (name, *_) in enumerate(photos.items) if labels.find(name)]
    pairs = []
    for i in tqdm(chosen, desc="reading labels", disable=None):
        pixels = photos.read(i)
        pairs.append((pixels, labels.read(photos.items[i][0], (pixels.shape[0], pixels.shape[1]))))
    return pairs


def window(latents: Latents, side: int, count: int, generator: Generator) -> Latents:
    """Random windows of random latents, float32: {"z": [count, c, side, side], ...}; smaller if the latents are."""
    found: dict[str, list[Tensor]] = {name: [] for name in latents}
    height, width = latents["z"].shape[-2:]
    for index, u, v in generator.random((count, 3)).tolist():
        top, left = int(u * max(height - side + 1, 1)), int(v * max(width - side + 1, 1))
        for name, values in latents.items():
            row = values[int(index * len(values))]
            found[name].append(row[:, top : top + side, left : left + side].float())
    return {name: torch.stack(rows) for name, rows in found.items()}


@torch.inference_mode()
def _kept(path: Path, name: str, facts: dict, make: Callable[[], Latents]) -> Latents:
    """The file's latents if they are of the same networks and facts, else new ones."""
    networks = {part: file_hash(weights_path(part, path.parent)) for part in (STAGE_A, name)}
    key = json.dumps({**networks, **facts}, sort_keys=True)
    if path.exists() and read_metadata(path).get("key") == key:
        return load_tensors(path)
    found = {part: values.contiguous() for part, values in make().items()}
    write_bytes(path, save(found, {"key": key}))
    return found
