"""The ONNX files a strongly typed TensorRT engine is built from, beside the bundle's encoder.onnx.

    python -m models.export_tensorrt BUNDLE_DIR OUT_DIR [--run RUN_DIR]

    encoder.int8.onnx    from the bundle's encoder.onnx: its int8 weights and ranges, float16 between them
    encoder.fp16.onnx    only with --run: from the float checkpoint, nothing quantised
    float32.safetensors  only with --run: what the checkpoint says of the bundle's golden inputs
    golden.safetensors   the bundle's, with what ONNX Runtime makes of the files above: `int8.*`, `fp16.*`

A strongly typed network computes in the types that the file names (TensorRT developer guide, "Strongly Typed
Networks"), so float16 has to stand in the file. Pooled heads stay float32: they are tiny, and a mean over 4096 cells
loses bits in float16. What TensorRT's parser demands of int8 (symmetric, zero points 0, bias left float, opset 19,
IR 9) the bundle's file meets; `check` says so of any file. Nothing in the bundle is changed: `models.sign` adds files.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.quantisers import quantised_inputs_only

OPSETS: Final = (19, 20)  # 10.3, the oldest TensorRT in use, reads up to 20; float16 scales need 19
IR_VERSION: Final = 9
FLOAT_OPERATIONS: Final = frozenset({"ReduceMean", "Gemm", "BatchNormalization", "Concat"})
QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
NOT_VALUES: Final = {"Resize": (1, 2)}  # inputs that the operator defines as float32 whatever it computes in
SMALLEST_NORMAL: Final = np.float32(np.finfo(np.float16).smallest_normal)
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def check(model: Any) -> list[str]:
    """What TensorRT 10.3 to 11.4 would refuse in an ONNX model; empty for one that it takes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    faults = []
    versions = [one.version for one in model.opset_import if one.domain == ""]
    if versions[0] not in OPSETS or model.ir_version > IR_VERSION:
        faults.append(f"expected opset 19 or 20 and IR at most 9, got opset {versions[0]}, IR {model.ir_version}")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            faults.append(f"expected ONNX's own operators, got {node.domain}.{node.op_type}")
        if node.op_type in QUANTISED:
            faults += _quantiser_faults(node, constants)
    return faults


def _quantiser_faults(node: Any, constants: dict[str, Any]) -> Iterator[str]:
    """Symmetric int8 (TensorRT developer guide, "Explicit Quantization"): int8, zero point 0, scale above 0."""
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None or zero.data_type != TensorProto.INT8:
        yield f"expected an int8 zero point at {node.name}, got another or none"
    elif numpy_helper.to_array(zero).any():
        yield f"expected a zero point of 0 at {node.name}, got another"
    scale = constants.get(node.input[1])
    if scale is None or not (numpy_helper.to_array(scale) > 0).all():
        yield f"expected constant scales above 0 at {node.name}, got others"


def int8_half(model: Any) -> Any:
    """encoder.int8.onnx: the bundle's int8 file with quantisers only where int8 is computed, float16 elsewhere."""
    return half(quantised_inputs_only(model))


def half(model: Any) -> Any:
    """The model with float16 between the same inputs and outputs, which stay float32."""
    _fit_scales(model.graph)
    graph = _Halved(model.graph)
    graph.rewrite()
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSETS[0]))
    model.ir_version = IR_VERSION
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def _fit_scales(graph: Any) -> None:
    """Round every int8 weight again to scales that are normal float16 numbers, so that value = scale * int8 holds."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        weight, scale = constants[node.input[0]], constants[node.input[1]]
        exact = numpy_helper.to_array(scale).astype(np.float32)
        fitted = np.maximum(exact, SMALLEST_NORMAL).astype(np.float16).astype(np.float32)
        integers = numpy_helper.to_array(weight)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        ratio = (exact / fitted).reshape(
            [-1 if i == axis else 1 for i in range(integers.ndim)] if exact.size > 1 else []
        )
        again = np.clip(np.rint(integers * ratio), -127, 127).astype(np.int8)
        weight.CopyFrom(numpy_helper.from_array(again, weight.name))
        scale.CopyFrom(numpy_helper.from_array(fitted, scale.name))


class _Halved:
    """Gives each node one type, float16 or float32, and puts a Cast where two of different types meet."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._types = {value.name: FLOAT for value in graph.input}
        self._kept = {
            node.input[i]
            for node in graph.node
            for i in (range(len(node.input)) if node.op_type in FLOAT_OPERATIONS else NOT_VALUES.get(node.op_type, ()))
            if i < len(node.input)
        }
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[Any] = []

    def rewrite(self) -> None:
        outputs = {value.name for value in self._graph.output}
        self._constants()
        for node in list(self._graph.node):
            wanted = FLOAT if node.op_type in FLOAT_OPERATIONS else HALF
            kept = NOT_VALUES.get(node.op_type, ())
            for i, name in enumerate(node.input):
                if i not in kept and self._types.get(name, wanted) != wanted:
                    node.input[i] = self._cast(name, wanted)
            for name in node.output:
                if node.op_type != "QuantizeLinear":
                    self._types[name] = wanted
            self._nodes.append(node)
        for name in outputs:
            if self._types[name] != FLOAT:
                self._output(name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _constants(self) -> None:
        for tensor in self._graph.initializer:
            if tensor.data_type != FLOAT:
                continue
            if tensor.name in self._kept:
                self._types[tensor.name] = FLOAT
                continue
            values = numpy_helper.to_array(tensor)
            halved = values.astype(np.float16)
            if not np.isfinite(halved).all():
                raise ValueError(f"expected weights within float16, got {np.abs(values).max():g} in {tensor.name}")
            tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))
            self._types[tensor.name] = HALF

    def _cast(self, name: str, to: int) -> str:
        if (name, to) not in self._casts:
            made = f"{name}_as_{'half' if to == HALF else 'float'}"
            self._nodes.append(helper.make_node("Cast", [name], [made], name=f"cast_{made}", to=to))
            self._casts[name, to] = made
        return self._casts[name, to]

    def _output(self, name: str) -> None:
        """The name of an output belongs to a Cast behind what made it."""
        inner = f"{name}_half"
        for node in self._nodes:
            node.input[:] = [inner if one == name else one for one in node.input]
            node.output[:] = [inner if one == name else one for one in node.output]
        self._nodes.append(helper.make_node("Cast", [inner], [name], name=f"cast_{name}", to=FLOAT))


def export_float(run: Path, path: Path) -> None:
    """The checkpoint's encoder as float32 ONNX with one input (1, 1, 256, 256), shapes inferred, constants folded."""
    import torch
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from models.export import Flat
    from models.model import Encoded, Encoder

    encoder = Encoder()
    encoder.load_state_dict(torch.load(run / "encoder.pt", weights_only=True))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float.onnx"
        torch.onnx.export(
            Flat(encoder.eval()).eval(), (torch.zeros(1, 1, 256, 256),), str(plain), input_names=["image"],
            output_names=list(Encoded._fields), opset_version=OPSETS[0], dynamo=False,
        )  # fmt: skip
        quant_pre_process(str(plain), str(path))


def outputs_of(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of a file; images: (M, 1, 256, 256) uint8, rows of the bundle's golden inputs.

    Its optimiser is off: with it, version 1.31.1 computes quantisers of float16 wrongly (all of them in front of and
    behind the convolutions: tokens at 3.6 dB of SQNR, without the optimiser at 7.7 dB).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = [session.run(names, {"image": image[None].astype(np.float32) / 127.5 - 1.0}) for image in images]
    return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}


def main() -> None:
    """Command line."""
    from safetensors.numpy import load_file, save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path, help="folder of the float checkpoint encoder.pt")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    golden = load_file(options.bundle / "golden.safetensors")
    models = {"encoder.int8.onnx": int8_half(onnx.load(str(options.bundle / "encoder.onnx")))}
    if options.run:
        plain = options.out / "encoder.fp32.onnx"
        export_float(options.run, plain)
        models["encoder.fp16.onnx"] = half(onnx.load(str(plain)))
        save_file(outputs_of(plain, golden["input"]), options.out / "float32.safetensors")
    for name, model in models.items():
        faults = check(model)
        if faults:
            raise SystemExit(f"{name}: {'; '.join(faults[:3])}")
        onnx.save(model, str(options.out / name))
        emission = name.split(".")[1]
        outputs = outputs_of(options.out / name, golden["input"])
        golden.update({f"{emission}.{output}": values for output, values in outputs.items()})
        print(f"{name}: {(options.out / name).stat().st_size} bytes, {len(model.graph.node)} nodes")
    save_file(golden, options.out / "golden.safetensors")


if __name__ == "__main__":
    main()
