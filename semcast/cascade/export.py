"""A model as ONNX files, for other programs, other languages, browsers and telephones.

    encoder.onnx           image [1, 3, H, W] in [0, 1], sides multiples of 32 -> z
    stage_b_map.onnx       z, noise [1, 16, hz, wz] and size (h / 2, w / 2) -> mapped
    stage_b_step.onnx      x [1, 4, h, w], r [1], mapped, sca [1] -> output
    stage_a_decoder.onnx   latent [1, 4, h, w] -> image [1, 3, 4 h, 4 w]

and, of a model with layers above Z, enhancement_encoder.onnx and enhancement_decoder.onnx, and restorer.onnx of one that
takes packets behind the base (enhancement_graphs.py).

`denoiser.py` says what goes between them. semcast itself builds the same graphs in memory, from the model's own files.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..errors import InputError, missing
from ..files import make_folder, write_bytes
from .config import ENHANCED_CHANNELS, ModelConfig, load_config
from .onnx_engine import GRAPHS, PARTS, OnnxEngine, graphs_of, load_weights
from .runtime import onnxruntime
from .tiles import log_rate

INLINE_MAX_BYTES = 1 << 30  # a file of protobuf holds 2 GiB; larger weights go into a second file
SIDE = 128  # pixels of the picture that is tried
TOLERANCE = 2e-3  # of the largest number; float32 sines of angles of up to 10000 differ by 1e-3


def export(source: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Write the graphs of the model in `source` with its weights in float32, and run each once.

    Each result is compared with torch's where torch is installed, else with that of our own engine.

    Raises:
        InputError: the model is damaged, a file cannot be written, or a result differs.
    """
    config, engine = load_config(source), reference(source)
    make_folder(folder)
    given = tried(config, engine)
    for name in graphs_of(config):
        part = PARTS[name]
        weights, path = load_weights(source, part), folder / f"{name}.onnx"
        graph = GRAPHS[name](getattr(config, part), weights, f"{source}/{part}.safetensors")
        location = ""
        if sum(array.nbytes for array in graph.weights.values()) > INLINE_MAX_BYTES:
            location = f"{name}.weights"
            write_arrays(folder / location, graph.outside().values())
        write_bytes(path, graph.model(location))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        inputs, expected = given[name]
        found = np.asarray(session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})[0])
        gap = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not gap <= TOLERANCE:
            raise InputError(f"{path} gives another result than {type(engine).__name__}, off by {gap:.1e}")
        say(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, within {gap:.0e} of {type(engine).__name__}")


def write_arrays(path: Path, arrays: Iterable[np.ndarray]) -> None:
    """As `write_bytes`, one array after the other, for more than should be in memory twice."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            for array in arrays:
                file.write(array.data)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def reference(source: Path):
    if missing("torch", "torchvision"):
        return OnnxEngine(source)
    from .loading import load_torch
    from .torch_engine import TorchEngine

    return TorchEngine(load_torch(source, dtype="float32"))


def tried(config: ModelConfig, engine) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """For each graph, inputs and the output they should have: one random picture passes them all."""
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, SIDE, SIDE), np.float32)
    z = engine.encode(image)
    noise, size = rng.random(z.shape, np.float32), (SIDE // 8, SIDE // 8)
    told = noise if config.stage_b.noise_map else None
    mapped = engine.map_z(z, told, size)
    x = rng.standard_normal((1, config.stage_b.latent_channels, SIDE // 4, SIDE // 4), np.float32)
    r, sca = np.array([0.99], np.float32), np.array([0.1], np.float32)
    as_array = np.asarray(mapped[0] if isinstance(mapped, list) else mapped)
    given = {
        "encoder": ({"image": image}, z),
        "stage_b_map": ({"z": z, "noise": noise, "size": np.array(size)}, as_array),
        "stage_b_step": ({"x": x, "r": r, "mapped": as_array, "sca": sca}, engine.step(x, r, mapped, sca)),
        "stage_a_decoder": ({"latent": x}, engine.decode(x)),
    }
    if config.enhancement.exists:
        known = [
            rng.random((1, 2 * ENHANCED_CHANNELS, SIDE // stride, SIDE // stride), np.float32) for stride in (16, 8)
        ]
        inputs = dict(zip(("base", "known_16", "known_8"), (image, *known)))
        given["enhancement_decoder"] = inputs, engine.enhance(image, known)
        middle, fine = engine.encode_layers(image)
        cells = fine.reshape(1, -1, SIDE // 16, 2, SIDE // 16, 2).transpose(0, 3, 5, 1, 2, 4)  # 2x2 places, channels
        expected = np.concatenate([cells.reshape(1, -1, *middle.shape[-2:]), middle], axis=1)
        given["enhancement_encoder"] = {"image": image}, expected
    if config.restorer.exists:
        inputs = {"base": image, "draft": image[..., ::-1], "rate": log_rate(0.1)}
        given["restorer"] = inputs, engine.restore(image, image[..., ::-1], 0.1)
    return given
