"""Building an ONNX graph: nodes in the order in which they run, and the weights they use.

Weights stay numpy arrays outside the graph (`Graph.weights`), which a session takes without a copy and `inline` writes
into it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import InputError

OPSET, IR_VERSION = 20, 9
Dims = Sequence[int | str]


class Graph:
    """A graph in the making. A value is the name of a tensor in it."""

    def __init__(self, name: str, tensors: Mapping[str, np.ndarray], where: str):
        """tensors: of the network's file, by their names in torch; where: the file, for messages."""
        self.name, self.tensors, self.where = name, tensors, where
        self.nodes, self.weights, self.known, self.used = [], {}, {}, set()

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        """Add a node with one output."""
        return self.split(kind, 1, *inputs, **attributes)[0]

    def split(self, kind: str, count: int, *inputs: str, **attributes) -> list[str]:
        """Add a node with several outputs."""
        outputs = [f"{kind}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs

    def take(self, key: str, *shape: int) -> np.ndarray:
        """A tensor of the network's file, as float32.

        Raises:
            InputError: it is missing, or of another shape or kind.
        """
        if key not in self.tensors:
            raise InputError(f"{self.where} lacks tensor {key}; it belongs to another network")
        tensor = self.tensors[key]
        if tensor.shape != shape:
            raise InputError(
                f"{self.where}: {key} is {list(tensor.shape)}, expected {list(shape)}; it belongs to another network"
            )
        if not np.issubdtype(tensor.dtype, np.floating):
            raise InputError(f"{self.where}: {key} holds {tensor.dtype}, expected float32")
        self.used.add(key)
        return tensor.astype(np.float32, copy=False)

    def constant(self, value) -> str:
        """A weight or a setting, float32 unless it is an array of whole numbers."""
        array = np.asarray(value)
        array = np.ascontiguousarray(array if array.dtype == np.int64 else array.astype(np.float32))
        small = (array.dtype.char, array.shape, array.tobytes()) if array.size <= 2048 else None
        if small in self.known:
            return self.known[small]
        name = f"weight_{len(self.weights)}"
        self.weights[name] = array
        if small:
            self.known[small] = name
        return name

    def model(
        self, inputs: Mapping[str, Dims], outputs: Mapping[str, Dims], whole: Sequence[str] = ()
    ) -> onnx.ModelProto:
        """The graph as ONNX with its weights outside; `whole` names inputs of whole numbers."""
        kind = lambda name: TensorProto.INT64 if name in whole else TensorProto.FLOAT
        values = [
            [helper.make_tensor_value_info(name, kind(name), list(dims)) for name, dims in side.items()]
            for side in (inputs, outputs)
        ]
        initializers = [outside(name, array) for name, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, self.name, values[0], values[1], initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="semcast")


def outside(name: str, array: np.ndarray) -> TensorProto:
    """A weight of which the graph holds all but the values. It holds settings, and weights of a few numbers."""
    if array.size <= 16 or array.dtype == np.int64:
        return onnx.numpy_helper.from_array(array, name)
    tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = TensorProto.FLOAT
    tensor.external_data.add(key="location", value="memory")
    return tensor


def inline(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with its weights in it, as a file for other programs."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for tensor in whole.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return whole
