"""ONNX Runtime, told to keep to itself: since 1.32 it reports its use to Microsoft, and leaves a device id at home.

Nobody wants that on a starved link. It must be said before the import, so every module takes `onnxruntime` from here.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as onnxruntime  # noqa: E402
