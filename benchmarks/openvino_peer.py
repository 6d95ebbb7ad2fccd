"""OpenVINO as a third engine, on the graphs that ONNX Runtime gets; for speed.py."""

from pathlib import Path

import numpy as np
import openvino  # pyright: ignore[reportMissingImports]  # not among the developers' packages

from semcast.cascade.graph import Graph
from semcast.cascade.onnx_engine import OnnxEngine


class OpenVinoEngine(OnnxEngine):
    """See `engine.Engine`."""

    def __init__(self, folder: Path, threads: int):
        super().__init__(folder)
        self.core = openvino.Core()
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def start(self, graph: Graph, large: bool):
        model = self.core.read_model(graph.model())
        compiled = self.core.compile_model(model, "CPU", self.settings)
        kinds = {i.any_name: np.int64 if "i64" in str(i.element_type) else np.float32 for i in compiled.inputs}
        return lambda inputs: compiled({k: np.ascontiguousarray(inputs[k], kinds[k]) for k in kinds})[0]
