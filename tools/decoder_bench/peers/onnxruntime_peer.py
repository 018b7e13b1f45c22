"""ONNX Runtime: our own network, int8 (dynamic) and int4 (MatMulNBits, accuracy level 4). Needs onnx, onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.decoder_bench.contestant import TURN, Contestant, NotInstalled
from tools.decoder_bench.peers.onnx_graph import build
from tools.decoder_bench.sizes import FIRST, Model


class OnnxRuntime:
    """A session; keys and values stay in the runtime's own values from step to step."""

    turn = TURN

    def __init__(self, runtime: Any, path: Path, model: Model, threads: int, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._runtime = runtime
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        shape, generator = model.size.shape, np.random.default_rng(1)
        heads, dh, n = shape.heads, shape.width // shape.heads, model.size.image_tokens
        self._layers, self._position = shape.layers, 0
        self._fixed, start = {}, {}
        for layer in range(shape.layers):
            self._fixed[f"cross_key_{layer}"] = self._value(generator.standard_normal((heads, dh, n), np.float32))
            self._fixed[f"cross_value_{layer}"] = self._value(generator.standard_normal((heads, n, dh), np.float32))
            self._fixed[f"bias_{layer}"] = self._value(model.bias[layer])
            start[f"past_key_{layer}"] = self._value(np.zeros((heads, dh, 0), np.float32))
            start[f"past_value_{layer}"] = self._value(np.zeros((heads, 0, dh), np.float32))
        self._state = start
        for _ in range(FIRST):
            self.token()
        self._kept = self._state

    def _value(self, array: np.ndarray) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def rewind(self) -> None:
        self._state, self._position = self._kept, FIRST

    def token(self) -> None:
        position = self._value(np.array([self._position], np.int64))
        feeds = {"token": position, "position": position, **self._fixed, **self._state}
        _, *state = self._session.run_with_ort_values(self._outputs, feeds)
        names = (f"past_{part}_{layer}" for layer in range(self._layers) for part in ("key", "value"))
        self._state = dict(zip(names, state, strict=True))
        self._position += 1


def contestants(model: Model, threads: int) -> Iterator[Contestant]:
    try:
        import onnx
        import onnxruntime
        from onnxruntime.quantization import QuantType, matmul_nbits_quantizer, quantize_dynamic
    except ImportError as error:
        raise NotInstalled(f"onnxruntime with onnx ({error.name})") from error
    onnxruntime.set_default_logger_severity(3)
    version = onnxruntime.__version__
    with tempfile.TemporaryDirectory() as folder:
        float_path, int8_path, int4_path = (Path(folder) / f"{name}.onnx" for name in ("float", "int8", "int4"))
        onnx.save(build(model), float_path)
        yield OnnxRuntime(onnxruntime, float_path, model, threads, f"ONNX Runtime {version} float32", "float")
        quantize_dynamic(float_path, int8_path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
        yield OnnxRuntime(onnxruntime, int8_path, model, threads, f"ONNX Runtime {version} int8 dynamic", "int8")
        quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
            onnx.load(float_path), block_size=32, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(int4_path))
        yield OnnxRuntime(onnxruntime, int4_path, model, threads, f"ONNX Runtime {version} MatMulNBits int4", "int4")
