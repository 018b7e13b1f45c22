"""A stand-in for `hailo_platform`: the recorded API and nothing else (tests/npu_hailort_api.json), and one device.

Underneath, ONNX Runtime computes the bundle's own network, so shapes, layouts, order and scaling are exercised for
real: the picture is rounded to 8 bits, outputs to 16 bits, and all are channels last. The HEF is a JSON document. What
the device does is told by the file that NPU_DEVICE names; the file beside it names the process that holds the device.
"""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from tests.npu_contract import record

MESSAGES = record("hailort")["messages"]
NAMES = {number: name for name, number in record("hailort")["statuses"].items()}
OK: dict[str, Any] = {"arch": "hailo8l", "devices": ["0001:01:00.0"], "fail": {}, "runs": 0}


class HailoRTException(Exception):
    """Of the Python layer."""


class HailoRTStatusException(Exception):
    """Of the binding; its argument is the status, as text."""


class FormatType(enum.Enum):
    """hailo_format_type_t."""

    AUTO, UINT8, UINT16, FLOAT32 = range(4)


def device_file() -> Path:
    """See the module docstring."""
    return Path(os.environ["NPU_DEVICE"])


def tell(**what: Any) -> None:
    """What the device does from now on. fail: stage -> hailo_status; after_runs: of which the last is still good."""
    device_file().write_text(json.dumps({**OK, **what}))


def held_by() -> str:
    """The process that holds the device, "" if none."""
    holder = device_file().with_suffix(".holder")
    return holder.read_text() if holder.exists() else ""


def _fail(stage: str, *, wrapped: bool = True) -> None:
    told = json.loads(device_file().read_text())
    status = told["fail"].get(stage, 0)
    if status:
        _raise(status, wrapped=wrapped)


def _raise(status: int, *, wrapped: bool = True) -> None:
    raw = HailoRTStatusException(str(status))
    if not wrapped:
        raise raw
    unnamed = f"libhailort failed with error: {status} ({NAMES[status]})"
    raise HailoRTException(MESSAGES.get(str(status), unnamed)) from raw


class Device:
    """Only to look for devices."""

    @classmethod
    def scan(cls) -> list[str]:
        _fail("scan", wrapped=False)
        return list(json.loads(device_file().read_text())["devices"])


class _Native:
    """The C++ object: the device is free when the last Python object that refers to it is gone."""

    def __init__(self) -> None:
        _fail("create")
        if held_by() or not Device.scan():
            _raise(74)
        self.holder = device_file().with_suffix(".holder")
        self.holder.write_text(str(os.getpid()))

    def __del__(self) -> None:
        if hasattr(self, "holder"):
            self.holder.unlink()


class VDevice:
    """See the record."""

    def __init__(self, params: Any = None, *, device_ids: Any = None) -> None:
        self._native: _Native | None = None
        self._native = _Native()

    def __enter__(self) -> VDevice:
        return self

    def __exit__(self, *args: Any) -> Literal[False]:
        self.release()
        return False

    def release(self) -> None:
        self._native = None
        _fail("release", wrapped=False)

    def create_infer_model(self, hef_source: Any, name: str = "") -> InferModel:
        _fail("load")
        assert self._native is not None
        return InferModel(self._native, Path(hef_source))


class HEF:
    """See the record."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def get_sorted_output_names(self, network_group_name: Any = None) -> list[str]:
        return list(self._document["outputs"])


class _ModelStream:
    """InferModel.InferStream."""

    def __init__(self, name: str, shape: list[int], formats: dict[str, FormatType]) -> None:
        self._name, self._shape, self._formats = name, shape, formats

    @property
    def name(self) -> str:
        return self._name

    @property
    def shape(self) -> list[int]:
        return list(self._shape)

    def set_format_type(self, type: FormatType) -> None:
        self._formats[self._name] = type


class InferModel:
    """See the record. The HEF: {"arch", "input": shape, "outputs": {name: [shape, name in the ONNX file]}}."""

    def __init__(self, native: _Native, path: Path) -> None:
        try:
            self._document = json.loads(path.read_bytes())
        except ValueError:
            _raise(26)
        if self._document["arch"] != json.loads(device_file().read_text())["arch"]:
            _raise(93)
        self._native, self._onnx = native, path.with_name("encoder.onnx")
        self._formats = dict.fromkeys(["in", *self._document["outputs"]], FormatType.UINT8)

    @property
    def hef(self) -> HEF:
        return HEF(self._document)

    @property
    def input_names(self) -> list[str]:
        return ["in"]

    @property
    def output_names(self) -> list[str]:
        return sorted(self._document["outputs"])

    @property
    def inputs(self) -> list[_ModelStream]:
        return [self.input()]

    @property
    def outputs(self) -> list[_ModelStream]:
        return [self.output(name) for name in self.output_names]

    def input(self, name: str = "") -> _ModelStream:
        return _ModelStream("in", self._document["input"], self._formats)

    def output(self, name: str = "") -> _ModelStream:
        if name not in self._document["outputs"]:
            _raise(61)
        return _ModelStream(name, self._document["outputs"][name][0], self._formats)

    def configure(self) -> ConfiguredInferModel:
        _fail("configure")
        return ConfiguredInferModel(self)


class _Buffer:
    """Bindings.InferStream."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._buffer: Any = None

    def set_buffer(self, buffer: Any) -> None:
        if not buffer.flags.c_contiguous:
            raise HailoRTException("Buffer must be C_CONTIGUOUS")
        if buffer.nbytes != self._size_bytes:
            _raise(6)
        self._buffer = buffer

    def get_buffer(self, tf_format: bool = False) -> Any:
        return self._buffer


class Bindings:
    """ConfiguredInferModel.Bindings; good for one run, as the binding of HailoRT replaces the addresses in it."""

    def __init__(self, streams: dict[str, _Buffer]) -> None:
        self._streams, self._used = streams, False

    def input(self, name: str = "") -> _Buffer:
        return self._streams["in"]

    def output(self, name: str = "") -> _Buffer:
        if name not in self._streams:
            _raise(61)
        return self._streams[name]


class ConfiguredInferModel:
    """See the record."""

    def __init__(self, model: InferModel) -> None:
        self._model, self._open = model, True
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model._onnx), options, providers=["CPUExecutionProvider"])

    def __enter__(self) -> ConfiguredInferModel:
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        self._open = False

    def create_bindings(self, input_buffers: Any = None, output_buffers: Any = None) -> Bindings:
        return Bindings(
            {name: _Buffer(int(np.prod(shape)) * self._bytes(name)) for name, shape in self._shapes().items()}
        )

    def run(self, bindings: Any, timeout: int) -> None:
        assert self._open
        told = json.loads(device_file().read_text())
        if told["runs"] >= told.get("after_runs", 0):
            _fail("run")
        device_file().write_text(json.dumps({**told, "runs": told["runs"] + 1}))
        for one in bindings:
            assert not one._used
            one._used = True
            self._compute(one)

    def _compute(self, bindings: Bindings) -> None:
        given = bindings.input().get_buffer()
        picture = np.clip(np.round((given.astype(np.float32) + 1.0) * 127.5), 0, 255)
        x = (picture / 127.5 - 1.0).astype(np.float32).reshape(self._model._document["input"])
        for name, (shape, onnx_name) in self._model._document["outputs"].items():
            (values,) = self._session.run([onnx_name], {"image": np.moveaxis(x, -1, 0)[None]})
            laid = np.moveaxis(values[0], 0, -1) if values.ndim == 4 else values[0]
            bindings.output(name).get_buffer()[...] = _rounded(laid).reshape(shape)

    def _shapes(self) -> dict[str, list[int]]:
        document = self._model._document
        return {"in": document["input"], **{name: shape for name, (shape, _) in document["outputs"].items()}}

    def _bytes(self, name: str) -> int:
        return {FormatType.FLOAT32: 4, FormatType.UINT16: 2}.get(self._model._formats[name], 1)


def _rounded(values: Any) -> Any:
    """To 16 bits over its range and back."""
    low, high = float(values.min()), float(values.max())
    scale = max((high - low) / 65535, 1e-12)
    return (np.round((values - low) / scale) * scale + low).astype(np.float32)


CLASSES = {
    "Device": Device, "VDevice": VDevice, "HEF": HEF, "InferModel": InferModel, "InferModel.InferStream": _ModelStream,
    "ConfiguredInferModel": ConfiguredInferModel, "Bindings": Bindings, "Bindings.InferStream": _Buffer,
}  # fmt: skip

PACKAGE = {
    "hailo_platform/__init__.py": "import hailo_platform.pyhailort._pyhailort\n"
    "from tests.npu_hailort import Device, FormatType, HailoRTException, VDevice\n",
    "hailo_platform/pyhailort/__init__.py": "",
    "hailo_platform/pyhailort/_pyhailort.py": "from tests.npu_hailort import HailoRTStatusException\n",
}


def install(folder: Path) -> Path:
    """The package below `folder`, to be put on the path of this process and its children."""
    for name, content in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder
