"""The bytes of an ONNX model, which is a protobuf message. Only what `graph.py` writes is here, and nothing is read.

A message is its fields one after the other, each with a key in front: its number times 8, plus how its value is stored.
Source: https://protobuf.dev/programming-guides/encoding and, for the numbers, onnx/onnx.proto of ONNX 1.16 (they never
change); `tests/test_engines.py` compares them with those of the package onnx.
"""

import functools
import struct

Value = int | float | str | bytes  # bytes: raw, or another message
VARINT, SIZED, FLOAT = 0, 2, 5  # how a value is stored

FIELDS = {  # of each message
    "ModelProto": {"ir_version": 1, "producer_name": 2, "graph": 7, "opset_import": 8},
    "OperatorSetIdProto": {"domain": 1, "version": 2},
    "GraphProto": {"node": 1, "name": 2, "initializer": 5, "input": 11, "output": 12},
    "NodeProto": {"input": 1, "output": 2, "op_type": 4, "attribute": 5},
    "AttributeProto": {"name": 1, "f": 2, "i": 3, "s": 4, "ints": 8, "type": 20},
    "ValueInfoProto": {"name": 1, "type": 2},
    "TypeProto": {"tensor_type": 1},
    "TypeProto.Tensor": {"elem_type": 1, "shape": 2},
    "TensorShapeProto": {"dim": 1},
    "TensorShapeProto.Dimension": {"dim_value": 1, "dim_param": 2},
    "TensorProto": {"dims": 1, "data_type": 2, "name": 8, "raw_data": 9, "external_data": 13, "data_location": 14},
    "StringStringEntryProto": {"key": 1, "value": 2},
}


def message(kind: str, **fields: Value | list) -> bytes:
    """A message of one of the kinds in `FIELDS`; a list is a field that repeats."""
    parts = []
    for name, values in fields.items():
        key = FIELDS[kind][name] << 3
        for value in values if isinstance(values, list) else (values,):
            if isinstance(value, int):
                parts += varint(key | VARINT), varint(value)
            elif isinstance(value, float):
                parts += varint(key | FLOAT), struct.pack("<f", value)
            else:
                data = value.encode() if isinstance(value, str) else value
                parts += varint(key | SIZED), varint(len(data)), data
    return b"".join(parts)


@functools.lru_cache  # most are small and come again: three times as fast
def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow. Negative numbers are 64 bits of complement."""
    value += (value < 0) << 64
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
