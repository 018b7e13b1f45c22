"""Model files that are checked: those of the bundle, what models.export_tensorrt makes of them, and bad ones.

Needs the package `onnx` (requirements/tensorrt-onnx.txt).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.export_tensorrt import check, int8_half

ROOT: Final = Path(__file__).resolve().parents[2]
BUNDLE: Final = ROOT / "models" / "bundles" / "chest"
EXPORTED: Final = ROOT / "build" / "tensorrt" / "onnx"  # where models.export_tensorrt wrote, on a machine that trained


def model_files(folder: Path) -> dict[str, Path]:
    """Name -> file. folder: for what is made here."""
    found = {path.name: path for path in sorted(BUNDLE.glob("encoder*.onnx"))}
    if "encoder.int8.onnx" not in found:
        made = folder / "encoder.int8.onnx"
        onnx.save(int8_half(onnx.load(str(BUNDLE / "encoder.onnx"))), str(made))
        found[made.name] = made
    fp16 = EXPORTED / "encoder.fp16.onnx"
    if fp16.name not in found and fp16.is_file():
        found[fp16.name] = fp16
    return found


def faults(path: Path) -> list[str]:
    """What models.export_tensorrt.check says of a file."""
    return check(onnx.load(str(path)))


def bad_files(folder: Path) -> dict[str, Path]:
    """The shipped encoder, each with one thing in it that TensorRT refuses, and a file that is no model."""
    written = {}
    for name, spoil in SPOILT.items():
        model = onnx.load(str(BUNDLE / "encoder.onnx"))
        spoil(model.graph)
        written[name] = folder / f"{name}.onnx"
        onnx.save(model, str(written[name]))
    written["no model"] = folder / "no-model.onnx"
    written["no model"].write_bytes(b"\x00not a model" * 100)
    return written


def _activation(graph: Any) -> tuple[Any, Any, dict[str, Any]]:
    """(QuantizeLinear, its DequantizeLinear, constants by name) of the first quantised activation."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantise = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    restore = next(node for node in graph.node if quantise.output[0] in node.input)
    return quantise, restore, constants


def _zero_point(graph: Any, value: np.ndarray) -> None:
    quantise, restore, _constants = _activation(graph)
    graph.initializer.append(numpy_helper.from_array(value, "other_zero_point"))
    quantise.input[2] = restore.input[2] = "other_zero_point"


def _uint8(graph: Any) -> None:
    _zero_point(graph, np.array(0, np.uint8))


def _zero_point_of_three(graph: Any) -> None:
    _zero_point(graph, np.array(3, np.int8))


def _int32_bias(graph: Any) -> None:
    """As quantisers do by default: a bias of int32 with the scale of the sums."""
    convolution = next(node for node in graph.node if node.op_type == "Conv" and len(node.input) > 2)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    bias = numpy_helper.to_array(constants[convolution.input[2]])
    graph.initializer.append(numpy_helper.from_array(np.rint(bias / 1e-4).astype(np.int32), "bias_q"))
    graph.initializer.append(numpy_helper.from_array(np.array(1e-4, np.float32), "bias_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int32), "bias_zero"))
    restored = helper.make_node("DequantizeLinear", ["bias_q", "bias_scale", "bias_zero"], ["bias_f"], name="bias_dq")
    graph.node.insert(0, restored)
    convolution.input[2] = "bias_f"


def _unknown_operator(graph: Any) -> None:
    clip = next(node for node in graph.node if node.op_type == "Clip")
    clip.op_type, clip.domain = "FourierMixer", "example.unknown"


SPOILT: Final[dict[str, Callable[[Any], None]]] = {
    "uint8": _uint8,
    "zero point": _zero_point_of_three,
    "int32 bias": _int32_bias,
    "unknown operator": _unknown_operator,
}
