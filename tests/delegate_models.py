"""Small TFLite models and bundles around them, written here node by node, for tests of runtimes and delegates."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from safetensors.numpy import save_file

from edge.bundle import Bundle, parse_manifest
from edge.reading.backends import OUTPUTS

SIDE = 256
ROUNDS = 64  # each an addition and a remainder
ADDED, DIVISOR = np.float32(0.37), np.float32(1.3)
CUSTOM = "NullRemainder"  # of tests/native/null_delegate.c
ADD, FULLY_CONNECTED, FLOOR_MOD = (
    schema.BuiltinOperator.ADD,
    schema.BuiltinOperator.FULLY_CONNECTED,
    schema.BuiltinOperator.FLOOR_MOD,
)
TENSOR_TYPES = {"float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "int4": schema.TensorType.INT4}


class Graph:
    """One subgraph that grows; tensors are numbers."""

    def __init__(self) -> None:
        self._tensors: list[schema.TensorT] = []
        self._operators: list[schema.OperatorT] = []
        self._codes: list[int | str] = []
        self._buffers = [schema.BufferT()]

    def tensor(self, name: str, shape: Sequence[int], kind: str = "float32", content: bytes | None = None) -> int:
        """A tensor, a constant if it has content."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), TENSOR_TYPES[kind]
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = list(content)
            self._buffers.append(buffer)
            tensor.buffer = len(self._buffers) - 1
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def quantise(self, tensor: int, scale: float, blockwise: bool = False) -> int:
        """Give a tensor its scale."""
        of = schema.QuantizationParametersT()
        of.scale, of.zeroPoint = [scale], [0]
        if blockwise:
            of.detailsType = schema.QuantizationDetails.BlockwiseQuantization
            of.details = schema.BlockwiseQuantizationT()
        self._tensors[tensor].quantization = of
        return tensor

    def operator(self, code: int | str, inputs: Sequence[int], output: int) -> int:
        """One node, of a custom operator if `code` is a name; returns its output."""
        if code not in self._codes:
            self._codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self._codes.index(code), list(inputs), [output]
        options = {
            ADD: (schema.BuiltinOptions.AddOptions, schema.AddOptionsT()),
            FULLY_CONNECTED: (schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT()),
            FLOOR_MOD: (schema.BuiltinOptions.FloorModOptions, schema.FloorModOptionsT()),
        }
        if code in options:
            operator.builtinOptionsType, operator.builtinOptions = options[code]
        self._operators.append(operator)
        return output

    def write(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs, subgraph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version, model.description = 3, "a test"
        model.subgraphs, model.buffers, model.operatorCodes = [subgraph], self._buffers, []
        for code in self._codes:
            of = schema.OperatorCodeT()
            number = code if isinstance(code, int) else schema.BuiltinOperator.CUSTOM
            of.builtinCode = of.deprecatedBuiltinCode = number
            of.customCode = code if isinstance(code, str) else None
            of.version = 1
            model.operatorCodes.append(of)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def remainders(compiled: bool = False) -> bytes:
    """x (1, 1, SIDE, SIDE) -> seven outputs of that shape, by additions and remainders in a row.

    No runtime computes FLOOR_MOD quickly (one call of the C library for each number, a broadcast by index), so a
    delegate that computes it plainly is many times faster on any machine. compiled: as one custom operator a round.
    """
    graph = Graph()
    shape = (1, 1, SIDE, SIDE)
    added = graph.tensor("added", (1,), content=ADDED.tobytes())
    divisor = graph.tensor("divisor", (1,), content=DIVISOR.tobytes())
    x = value = graph.tensor("x", shape)
    outputs: list[int] = []
    for number in range(ROUNDS):
        last = number >= ROUNDS - len(OUTPUTS)
        rest = graph.tensor(f"output_{len(outputs)}" if last else f"rest_{number}", shape)
        if compiled:
            value = graph.operator(CUSTOM, (value, added, divisor), rest)
        else:
            value = graph.operator(ADD, (value, added), graph.tensor(f"sum_{number}", shape))
            value = graph.operator(FLOOR_MOD, (value, divisor), rest)
        outputs += [value] if last else []
    return graph.write([x], outputs)


def remainders_of(x: np.ndarray) -> dict[str, np.ndarray]:
    """What `remainders` is to compute."""
    values = []
    for _ in range(ROUNDS):
        x = np.mod(x + ADDED, DIVISOR)
        values.append(x)
    return dict(zip(OUTPUTS, values[-len(OUTPUTS) :], strict=True))


def dense(weights: str, blockwise: bool = False) -> bytes:
    """y (1, 8) = W x with float32 activations and `weights` float32, int8 or int4."""
    graph = Graph()
    x, y = graph.tensor("x", (1, 32)), graph.tensor("y", (1, 8))
    size_bytes = {"float32": 4 * 256, "int8": 256, "int4": 128}[weights]
    w = graph.tensor("w", (8, 32), weights, bytes(size_bytes))
    if weights != "float32":
        graph.quantise(w, 0.01, blockwise)
    graph.operator(FULLY_CONNECTED, (x, w), y)
    return graph.write([x], [y])


def make_bundle(like: Bundle, folder: Path, files: dict[str, bytes], golden: dict[str, np.ndarray]) -> Bundle:
    """The bundle `like` with other `files` and another golden case; nobody signed it."""
    shutil.copytree(like.path, folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    save_file(golden, folder / "golden.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {*manifest["files"], *files}
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)}
    manifest["golden"]["cases"] = len(golden["input"])
    document = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(document)
    return dataclasses.replace(
        like, path=folder, manifest=parse_manifest(document), sha256=hashlib.sha256(document).hexdigest()
    )


def make_remainders_bundle(like: Bundle, folder: Path) -> Bundle:
    """A bundle whose encoder is `remainders`, with a compiled file for the Ethos-U."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 1, SIDE, SIDE), dtype=np.uint8)
    golden = {f"tflite.{name}": y for name, y in remainders_of(pixels.astype(np.float32) / 127.5 - 1.0).items()}
    files = {"encoder.tflite": remainders(), "encoder.vela.tflite": remainders(compiled=True)}
    return make_bundle(like, folder, files, {"input": pixels, **golden})
