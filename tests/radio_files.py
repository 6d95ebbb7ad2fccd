"""Recordings for tests, and what they should show: signals as files, pictures that are painted instead of decoded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny import TINY_ENHANCEMENT, photo, tiny_cascade

from semcast.cascade.checkpoint import save_model
from semcast.cascade.model import Cascade
from semcast.cli import main
from semcast.images import to_image
from semcast.modem.layout import lay_out
from semcast.modem.profiles import PROFILES, SYMBOL

SIDE = 256
RATE_HZ = 8000
MODEL = ("--model", "tiny")
FAST = PROFILES["fast"]


def attentive(cascade: Cascade) -> Cascade:
    """With a Z that tells pictures apart: the last normalisation of a random encoder knows no picture yet."""
    images = torch.from_numpy(np.concatenate([to_image(photo(SIDE, SIDE, seed)) for seed in range(8)]))
    norm: Any = cascade.encoder.mapper[1]
    z = cascade.encoder(images)  # [8, 16, 8, 8]
    norm.running_mean += z.mean((0, 2, 3)) * torch.sqrt(norm.running_var)
    norm.running_var *= z.var((0, 2, 3))
    return cascade


def paint(header, layers, *_) -> np.ndarray:
    """In place of the networks, of which tiny random ones hardly look at what arrived: it is shown as it is.

    The 16 channels of Z are red tiles of the picture, those of the layers above are green and blue.
    """
    tiles = np.full((3, 4, SIDE // 4, 4, SIDE // 4), 0.5)
    for colour, layer, scale in zip(tiles, layers, (0.7, 0.2, 0.2)):  # about what they are
        side = SIDE // 4
        rows = np.arange(side) * layer.z.shape[-1] // side
        colour += scale * layer.z[0].reshape(4, 4, *layer.z.shape[-2:])[..., rows, :][..., rows].transpose(0, 2, 1, 3)
    return tiles.reshape(1, 3, SIDE, SIDE).clip(0, 1).astype(np.float32)


def wav(name: str) -> np.ndarray:
    return soundfile.read(name, dtype="float32")[0]


def save(name: str, *pieces: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "PCM_16") -> None:
    soundfile.write(name, np.concatenate(pieces), rate_hz, subtype)


def noise(seconds: float, level: float = 0.05, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE_HZ)).astype(np.float32)


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name), dtype=float)


def distance(a: str, b: str) -> float:
    return float(np.sqrt(np.mean((pixels(a) - pixels(b)) ** 2)))


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def without_header(name: str) -> np.ndarray:
    """The signal, with noise where the header is."""
    samples, layout = wav(name), lay_out(FAST, 288)
    for part in layout.header_parts:
        for at in layout.data_at[part] + round(0.2 * RATE_HZ):
            samples[at : at + SYMBOL] = noise(SYMBOL / RATE_HZ, 0.2, seed=int(at))
    return samples


@pytest.fixture(scope="session")
def radio_store(tmp_path_factory) -> Path:
    """A model with all rungs, two pictures, and what `send` makes of them."""
    store = tmp_path_factory.mktemp("radio")
    save_model(attentive(tiny_cascade(enhancement=TINY_ENHANCEMENT)), store / "tiny")
    for i, name in enumerate("ab"):
        Image.fromarray(photo(SIDE, SIDE, i)).save(store / f"{name}.png")
        for suffix in ("sem", "wav"):
            argv = ["send", store / f"{name}.png", "-o", store / f"{name}.{suffix}", "--model", store / "tiny", "-q"]
            assert main([str(word) for word in argv]) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("semcast.link.receive", paint)
            argv = ["receive", store / f"{name}.sem", "-o", store / f"{name}-frame.png", "--model", store / "tiny"]
            assert main([str(word) for word in argv]) == 0
    return store


@pytest.fixture
def radio_folder(radio_store, tmp_path, monkeypatch) -> Path:
    """A working folder with links to all that, where received symbols are painted."""
    monkeypatch.setattr("semcast.link.receive", paint)
    monkeypatch.chdir(tmp_path)
    for path in radio_store.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.fixture
def near(radio_folder):
    """near(picture, name) sees whether it is nearly what the frame of `name`.png gives, and not the other's."""
    other = {"a": "b", "b": "a"}

    def check(picture: str, name: str = "a", share: float = 0.35) -> bool:
        apart = distance("a-frame.png", "b-frame.png")
        assert apart > 10
        return distance(picture, f"{name}-frame.png") < share * apart < distance(picture, f"{other[name]}-frame.png")

    return check
