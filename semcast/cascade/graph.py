"""Building an ONNX graph: nodes in the order in which they run, and the weights they use.

Weights stay numpy arrays (`Graph.weights`). A session takes them without a copy; a file holds them, or names a second
file that does.
"""

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .protobuf import message

OPSET, IR_VERSION = 20, 9
DATA_TYPES = {"f": 1, "i": 7}  # float32 and int64 by their kind in numpy: `TensorProto.DataType` in onnx.proto
EXTERNAL = 1  # `TensorProto.DataLocation`
ATTRIBUTES = {float: ("f", 1), int: ("i", 2), str: ("s", 3), list: ("ints", 7)}  # field, `AttributeProto.AttributeType`
Dims = Sequence[int | str]
Attribute = float | int | str | list[int]


class Node(NamedTuple):
    """An operator of https://onnx.ai/onnx/operators, and the names of what it reads and makes."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Attribute]


class Graph:
    """A graph in the making. A value is the name of a tensor in it."""

    def __init__(self, name: str, tensors: Mapping[str, np.ndarray], where: str):
        """tensors: of the network's file, by their names in torch; where: the file, for messages."""
        self.name, self.tensors, self.where = name, tensors, where
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}
        self.known: dict[tuple, str] = {}  # the names of small weights, by their values
        self.used: set[str] = set()  # of `tensors`
        self.inputs: dict[str, Dims] = {}
        self.outputs: dict[str, Dims] = {}
        self.whole: Sequence[str] = ()  # inputs of whole numbers

    def op(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node with one output."""
        return self.split(kind, 1, *inputs, **attributes)[0]

    def split(self, kind: str, count: int, *inputs: str, **attributes: Attribute) -> list[str]:
        """Add a node with several outputs."""
        outputs = [f"{kind}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(Node(kind, list(inputs), outputs, attributes))
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

    def finish(self, inputs: Mapping[str, Dims], output: str, dims: Dims, whole: Sequence[str] = ()) -> "Graph":
        """Name what goes in, and the output, which the last node makes; `whole`: inputs of whole numbers."""
        self.nodes[-1].outputs[0] = output
        self.inputs, self.outputs, self.whole = dict(inputs), {output: dims}, whole
        return self

    def outside(self) -> dict[str, np.ndarray]:
        """The weights that need not be in the model: all but settings and weights of a few numbers."""
        return {name: array for name, array in self.weights.items() if array.size > 16 and array.dtype != np.int64}

    def model(self, location: str = "") -> bytes:
        """The graph as ONNX.

        Args:
            location: the file that will have the weights of `outside()` in a row; by default the model has all weights.
                A session that is given these weights reads no file, whatever the location.
        """
        far = self.outside() if location else {}
        offsets = dict(zip(far, itertools.accumulate((array.nbytes for array in far.values()), initial=0)))
        graph = message(
            "GraphProto",
            node=[node(n) for n in self.nodes],
            name=self.name,
            initializer=[tensor(name, a, location, offsets.get(name)) for name, a in self.weights.items()],
            input=[value(n, dims, "i" if n in self.whole else "f") for n, dims in self.inputs.items()],
            output=[value(n, dims) for n, dims in self.outputs.items()],
        )
        opset = message("OperatorSetIdProto", domain="", version=OPSET)
        return message("ModelProto", ir_version=IR_VERSION, producer_name="semcast", graph=graph, opset_import=[opset])


def node(n: Node) -> bytes:
    """A node, its attributes by name."""
    attributes = [attribute(name, n.attributes[name]) for name in sorted(n.attributes)]
    return message("NodeProto", input=n.inputs, output=n.outputs, op_type=n.kind, attribute=attributes)


def attribute(name: str, setting: Attribute) -> bytes:
    """A setting of a node, of one of the kinds in `ATTRIBUTES`."""
    field, kind = ATTRIBUTES[type(setting)]
    if isinstance(setting, list):
        setting = [operator.index(i) for i in setting]  # refuses fractions, which only a wrong config.json has
    return message("AttributeProto", **{"name": name, field: setting, "type": kind})


def value(name: str, dims: Dims, kind: str = "f") -> bytes:
    """An input or output; a dimension that is a name may have any size."""
    sides = [
        message("TensorShapeProto.Dimension", **{"dim_param" if isinstance(d, str) else "dim_value": d}) for d in dims
    ]
    shape = message("TensorShapeProto", dim=sides)
    tensor_type = message("TypeProto.Tensor", elem_type=DATA_TYPES[kind], shape=shape)
    return message("ValueInfoProto", name=name, type=message("TypeProto", tensor_type=tensor_type))


def tensor(name: str, array: np.ndarray, location: str, offset: int | None) -> bytes:
    """A weight, with its values unless it has an offset in the file `location`."""
    head = dict(dims=list(array.shape), data_type=DATA_TYPES[array.dtype.kind], name=name)
    if offset is None:
        return message("TensorProto", **head, raw_data=array.tobytes())  # little-endian, as ONNX wants and CPUs are
    place = {"location": location, "offset": str(offset), "length": str(array.nbytes)}
    entries = [message("StringStringEntryProto", key=k, value=v) for k, v in place.items()]
    return message("TensorProto", **head, external_data=entries, data_location=EXTERNAL)
