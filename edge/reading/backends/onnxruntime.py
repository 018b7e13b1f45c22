"""ONNX Runtime on the QDQ int8 ONNX file: the reference for the TensorRT engine, and the fall-back on a PC."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends.setup import Setup
from edge.reading.radiograph import F32


class OnnxEncoder:
    """Runs encoder.onnx; inputs and outputs are float32, the quantisation is inside the graph."""

    name = "onnxruntime"
    emission = "onnx"

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        self._input = session.get_inputs()[0].name

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`."""
        try:
            values = self._session.run(None, {self._input: x})
        except _onnx_errors() as error:
            raise BackendError("ONNX Runtime failed while running the model.", code="backend.run") from error
        return {name: np.asarray(value, np.float32) for name, value in zip(self._names, values, strict=True)}


def load(bundle: Bundle, setup: Setup) -> OnnxEncoder:
    """Load encoder.onnx. Raises BackendError: backend.absent, backend.load."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("ONNX Runtime is not installed.", code="backend.absent") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        path = str(bundle.file("encoder.onnx"))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except _onnx_errors() as error:
        raise BackendError("ONNX Runtime refused the model file.", code="backend.load") from error
    return OnnxEncoder(session)


def _onnx_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions derive from Exception alone."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        RuntimeError,
        ValueError,
        state.Fail,
        state.InvalidGraph,
        state.InvalidArgument,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )
