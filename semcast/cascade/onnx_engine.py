"""The engine for using a model on any computer: ONNX Runtime on the CPU, in float32, without torch."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import load_arrays
from . import networks
from .config import ENHANCED_CHANNELS, ENHANCEMENT, NETWORKS, PATCH, RESTORER, ModelConfig, load_config
from .eight_bit import expanded
from .enhancement_graphs import enhancement_decoder, enhancement_encoder, restorer
from .fingerprint import encoder_id
from .graph import Graph
from .runtime import onnxruntime
from .tiles import enhanced_in_tiles, in_tiles, log_rate

GRAPHS = {  # the graphs, and the network of each
    "encoder": networks.encoder,
    "stage_b_map": networks.stage_b_map,
    "stage_b_step": networks.stage_b_step,
    "stage_a_decoder": networks.stage_a_decoder,
    "enhancement_encoder": enhancement_encoder,
    "enhancement_decoder": enhancement_decoder,
    "restorer": restorer,
}
PARTS = {name: next(part for part in (*NETWORKS, ENHANCEMENT, RESTORER) if name.startswith(part)) for name in GRAPHS}
LARGE = 256 * 256  # latent pixels: a picture of 1024x1024
Run = Callable[[dict[str, np.ndarray]], np.ndarray]
NOT_RUN = {  # tensors of a file that the link does not need
    "encoder": (),
    "stage_b": (),
    "stage_a": ("in_block.", "down_blocks.", "vquantizer."),
    "enhancement": (),
    "restorer": (),
}


class OnnxEngine:
    """See `engine.Engine`. Sessions are made when they are first needed: a sender never loads Stage B."""

    def __init__(self, folder: Path):
        self.folder, self.config = Path(folder), load_config(folder)
        self.sessions: dict[tuple[str, bool], Run] = {}
        for part in self.config.networks:
            if not (self.folder / f"{part}.safetensors").exists():
                raise InputError(f"{self.folder}/{part}.safetensors is missing")

    @property
    def encoder_id(self) -> int:
        return self._encoder_id

    @functools.cached_property
    def _encoder_id(self) -> int:
        above = load_weights(self.folder, ENHANCEMENT) if self.config.enhancement.exists else None
        return encoder_id(load_weights(self.folder, "encoder"), above)

    def load(self, layers: bool = True) -> None:
        """ONNX Runtime prepares one network while Python builds the graphs of the next."""
        parts = [part for part in self.config.networks if layers or part in NETWORKS]
        with ThreadPoolExecutor(len(parts) + 1) as threads:
            known = threads.submit(lambda: self.encoder_id)
            for made in threads.map(self.prepare, parts):
                self.sessions |= made
            known.result()

    def encode(self, image: np.ndarray) -> np.ndarray:
        run = self.session("encoder", image.shape[-2] * image.shape[-1] > 16 * LARGE)
        return joined([run({"image": row[None]}) for row in image])

    def sampling(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def map_z(self, z: np.ndarray, noise: np.ndarray | None, size: tuple[int, int]) -> list[np.ndarray]:
        run = self.session("stage_b_map", size[0] * size[1] > LARGE // PATCH**2)
        noise = np.zeros_like(z) if noise is None else noise
        given = {"noise": noise} if self.config.stage_b.noise_map else {}
        rows = range(len(z))
        return [
            run({"z": z[i : i + 1], "size": np.array(size)} | {k: v[i : i + 1] for k, v in given.items()}) for i in rows
        ]

    def step(self, x: np.ndarray, r: np.ndarray, mapped: list[np.ndarray], sca: np.ndarray | None) -> np.ndarray:
        run = self.session("stage_b_step", x.shape[-2] * x.shape[-1] > LARGE)
        sca = np.zeros_like(r) if sca is None else sca
        rows = [slice(i, i + 1) for i in range(len(x))]
        return np.concatenate(
            [run({"x": x[row], "r": r[row], "mapped": m, "sca": sca[row]}) for row, m in zip(rows, mapped)]
        )

    def decode(self, latent: np.ndarray) -> np.ndarray:
        run = self.session("stage_a_decoder")
        decode = lambda part: run({"latent": part})
        return joined([in_tiles(decode, row[None], self.config.stage_a) for row in latent])

    def encode_layers(self, image: np.ndarray) -> list[np.ndarray]:
        run = self.session("enhancement_encoder")
        encode = lambda part: run({"image": part})
        fine = 4 * ENHANCED_CHANNELS
        found = [enhanced_in_tiles(encode, self.config.enhancement, [row[None]], 16, fine + 16) for row in image]
        together = joined(found)
        return [together[:, fine:], places_apart(together[:, :fine])]

    def enhance(self, base: np.ndarray, known: list[np.ndarray]) -> np.ndarray:
        run = self.session("enhancement_decoder")
        decode = lambda *parts: run(dict(zip(("base", "known_16", "known_8"), parts)))
        rows = [[part[i : i + 1] for part in (base, *known)] for i in range(len(base))]
        return joined([enhanced_in_tiles(decode, self.config.enhancement, row, 1, 3) for row in rows])

    def restore(self, base: np.ndarray, draft: np.ndarray, bits_per_pixel: float) -> np.ndarray:
        run = self.session("restorer")
        rate = log_rate(bits_per_pixel)
        restore = lambda *parts: run({"base": parts[0], "draft": parts[1], "rate": rate})
        return enhanced_in_tiles(restore, self.config.restorer, [base, draft], 1, 3)

    def session(self, name: str, large: bool = False) -> Run:
        """A function that runs a graph: {input: array} -> its output.

        large: give memory back to the system as soon as it is free, which takes time. The encoder and Stage B need all
            of a picture at once; the decoder works in tiles.
        """
        if (name, large) not in self.sessions:
            self.sessions |= self.prepare(PARTS[name], large)
        return self.sessions[name, large]

    def prepare(self, part: str, large: bool = False) -> dict[tuple[str, bool], Run]:
        """The sessions of a network's graphs."""
        names = [name for name in GRAPHS if PARTS[name] == part]
        tensors, where = load_weights(self.folder, part), f"{self.folder}/{part}.safetensors"
        try:
            made = {name: GRAPHS[name](getattr(self.config, part), tensors, where) for name in names}
        except (KeyError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            raise InputError(f"{self.folder}/config.json describes no network: {error}") from None
        check_unknown(tensors, set().union(*(graph.used for graph in made.values())), part, where)
        return {(name, large): self.start(graph, large) for name, graph in made.items()}

    def start(self, graph: Graph, large: bool) -> Run:
        """Give a graph to ONNX Runtime, which takes the weights from our arrays."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes need the cores too
        options.enable_mem_pattern = False  # it reserves memory for each size of picture, and was no faster
        options.enable_cpu_mem_arena = not large
        weights = graph.outside()
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        try:
            session = onnxruntime.InferenceSession(graph.model("memory"), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base
            raise InputError(f"ONNX Runtime cannot run the network: {str(error).splitlines()[0]}") from None
        kinds = {i.name: np.int64 if "int64" in i.type else np.float32 for i in session.get_inputs()}
        return lambda inputs: np.asarray(
            session.run(None, {k: np.ascontiguousarray(inputs[k], kinds[k]) for k in kinds})[0]
        )


def graphs_of(config: ModelConfig) -> list[str]:
    """The names of the graphs that a model has."""
    return [name for name, part in PARTS.items() if part in config.networks]


def places_apart(x: np.ndarray) -> np.ndarray:
    """Undo the graph's SpaceToDepth: [B, 4 C, h, w] -> [B, C, 2 h, 2 w]."""
    batch, channels, h, w = x.shape
    parts = x.reshape(batch, 2, 2, channels // 4, h, w)
    return parts.transpose(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * h, 2 * w)


def joined(rows: list[np.ndarray]) -> np.ndarray:
    """The batch of these pictures. One alone, which may be large, is not copied."""
    return np.concatenate(rows) if len(rows) > 1 else rows[0]


def load_weights(folder: Path, part: str) -> dict[str, np.ndarray]:
    """The tensors of one of `config.NETWORKS`, 8-bit weights as float32."""
    return expanded(load_arrays(folder / f"{part}.safetensors"))


def check_unknown(tensors: Mapping[str, np.ndarray], used: set[str], part: str, where: str) -> None:
    """Refuse a file with tensors of another network."""
    unknown = [k for k in tensors if k not in used and not k.startswith(NOT_RUN[part])]
    if unknown := [k for k in unknown if not k.endswith("num_batches_tracked")]:
        raise InputError(
            f"{where} has the unknown tensor {min(unknown)} ({len(unknown)} such); it belongs to another network"
        )


def threads() -> int:
    """OMP_NUM_THREADS, or as many as there are cores for this process."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
