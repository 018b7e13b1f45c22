"""Hailo-8, Hailo-8L and Hailo-10H through HailoRT's Python package `hailo_platform`: runs encoder.hef.

InferModel is the one API that HailoRT 4.20 to 5.x have for all three chips: on the 10H the older virtual streams are
not implemented. Source: hailo-ai/hailort (MIT), bindings/python/platform/hailo_platform/pyhailort/pyhailort.py
(VDevice, InferModel, ConfiguredInferModel, HEF) and its tutorial HRT_0_Async_Inference; statuses: hailo/hailort.h.
Not run on a device: tests/test_hailo.py holds it against tests/npu_hailort_api.json.
"""

from __future__ import annotations

import importlib
import logging
import traceback
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import OUTPUTS
from edge.reading.backends.npu import channels_last, compiled_file, fits, output_shapes, to_channels_first
from edge.reading.backends.setup import Setup
from edge.reading.radiograph import F32

EMISSION = "hef"
MAKER = "Hailo's Dataflow Compiler"
RUN_TIMEOUT_MS = 10_000  # HAILO_DEFAULT_ASYNC_INFER_TIMEOUT_MS of hailort.h
_log = logging.getLogger("worker")

LOST = "The Hailo device stopped answering."
BUSY = "Another program on this box is using the Hailo device."
VERSIONS = "HailoRT, its driver and the device's firmware are of different versions: expected one and the same."
# hailo_status of hailort.h: (code, sentence). The numbers are the same in 4.18 and 5.x; those from 85 on were added.
STATUSES: Final[Mapping[int, tuple[str, str]]] = {
    4: ("backend.run", f"The Hailo device gave no answer within {RUN_TIMEOUT_MS // 1000} s."),
    16: ("backend.version", VERSIONS),  # HAILO_UNSUPPORTED_FW_VERSION
    26: ("backend.load", "HailoRT refused encoder.hef: it is damaged, or was compiled for another Hailo chip."),
    36: ("backend.lost", LOST),  # HAILO_DRIVER_OPERATION_FAILED, before 5.0 HAILO_DRIVER_FAIL
    57: ("backend.lost", LOST),  # HAILO_SHUTDOWN_EVENT_SIGNALED
    62: ("backend.lost", LOST),  # HAILO_COMMUNICATION_CLOSED
    64: ("backend.absent", "The driver of the Hailo device is not installed."),  # HAILO_DRIVER_NOT_INSTALLED
    73: ("backend.busy", BUSY),  # HAILO_DEVICE_IN_USE
    75: ("backend.wrong-chip", "HailoRT does not know the chip of this Hailo device."),
    76: ("backend.version", VERSIONS),  # HAILO_INVALID_DRIVER_VERSION
    77: ("backend.lost", LOST),  # HAILO_RPC_FAILED, of the 10H
    85: ("backend.version", VERSIONS),  # HAILO_DRIVER_INVALID_RESPONSE
    86: ("backend.version", VERSIONS),  # HAILO_DRIVER_INVALID_IOCTL
    87: ("backend.lost", LOST),  # HAILO_DRIVER_TIMEOUT
    91: ("backend.load", "HailoRT refused encoder.hef: the file is damaged."),
    92: ("backend.load", "HailoRT refused encoder.hef: expected a file of an older Dataflow Compiler."),
    93: ("backend.wrong-chip", "Expected an encoder.hef for the Hailo chip in this box, got one for another chip."),
    96: ("backend.lost", LOST),  # HAILO_DEVICE_NOT_CONNECTED
    97: ("backend.busy", BUSY),  # HAILO_DEVICE_TEMPORARILY_UNAVAILABLE
}
OUT_OF_DEVICES = 74  # HAILO_OUT_OF_PHYSICAL_DEVICES: there is none, or each is in use


@dataclass(frozen=True)
class Port:
    """One of OUTPUTS: its name in the file, its shape there (channels last, no batch) and here."""

    theirs: str
    their_shape: tuple[int, ...]
    shape: tuple[int, ...]


class HailoEncoder:
    """Owns the device until `close`. HailoRT scales floats to the file's integers and back (format type FLOAT32)."""

    name = "hailo"
    emission = EMISSION

    def __init__(self, hailo: Any, configured: Any, ports: Mapping[str, Port], opened: ExitStack) -> None:
        """ports: by name of OUTPUTS. opened: what `close` undoes."""
        self._hailo, self._configured, self._ports = hailo, configured, ports
        self._give_back = weakref.finalize(self, opened.close)

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`. A failure closes the device, so that it can be found again."""
        if self._configured is None:
            raise BackendError(LOST, code="backend.lost")
        image = np.ascontiguousarray(x[0].transpose(1, 2, 0), np.float32)
        buffers = {name: np.empty(port.their_shape, np.float32) for name, port in self._ports.items()}
        try:
            self._compute(image, buffers)
        except _errors(self._hailo) as error:
            _let_go(error)
            self.close()
            raise _failure(self._hailo, error, "backend.run", "HailoRT failed while running the model.") from error
        return {name: to_channels_first(buffer, self._ports[name].shape) for name, buffer in buffers.items()}

    def _compute(self, image: F32, buffers: Mapping[str, F32]) -> None:
        """New bindings for every run: HailoRT points those of a run at buffers of its own."""
        bindings = self._configured.create_bindings()
        bindings.input().set_buffer(image)
        for name, buffer in buffers.items():
            bindings.output(self._ports[name].theirs).set_buffer(buffer)
        self._configured.run([bindings], RUN_TIMEOUT_MS)

    def close(self) -> None:
        """Give the device back; harmless a second time."""
        self._configured = None  # it keeps the device open beyond `release`
        try:
            self._give_back()
        except _errors(self._hailo) as error:
            _log.warning("the Hailo device could not be closed (status %d)", _status(error))


def load(bundle: Bundle, setup: Setup) -> HailoEncoder:
    """Open the device and put encoder.hef on it.

    Raises BackendError: backend.no-model, backend.absent (no HailoRT, driver or device), backend.version, backend.busy,
    backend.wrong-chip, backend.lost, backend.load, backend.model (not the reader's inputs and outputs).
    """
    path = compiled_file(bundle, EMISSION, MAKER)
    hailo = _package()
    try:
        return _open(hailo, bundle, path)
    except BackendError as error:
        _let_go(error)
        raise
    except _errors(hailo) as error:
        _let_go(error)
        raise _failure(hailo, error, "backend.load", "HailoRT refused the model file.") from error


def _open(hailo: Any, bundle: Bundle, path: Path) -> HailoEncoder:
    with ExitStack() as opened:
        device = opened.enter_context(hailo.VDevice())
        model = device.create_infer_model(str(path))
        ports = _ports(model, bundle)
        for stream in (model.input(), *(model.output(port.theirs) for port in ports.values())):
            stream.set_format_type(hailo.FormatType.FLOAT32)
        configured = opened.enter_context(model.configure())
        return HailoEncoder(hailo, configured, ports, opened.pop_all())


def _package() -> Any:
    try:
        return importlib.import_module("hailo_platform")
    except ImportError as error:
        # The package and libhailort hold their versions against each other when they are imported.
        if "version" in str(error):
            raise BackendError(VERSIONS, code="backend.version") from error
        raise BackendError("HailoRT's Python package is not installed.", code="backend.absent") from error


def _ports(model: Any, bundle: Bundle) -> dict[str, Port]:
    """By name of OUTPUTS; the file keeps the order of the outputs of the ONNX file that it was made from."""
    size = bundle.manifest.input_size
    images = [tuple(stream.shape) for stream in model.inputs]
    if images != [(size, size, 1)]:
        raise _not_ours(f"one input of {size} x {size} x 1", images)
    theirs = list(model.hef.get_sorted_output_names())
    if len(theirs) != len(OUTPUTS):
        raise _not_ours(f"{len(OUTPUTS)} outputs", len(theirs))
    shapes = output_shapes(bundle)
    ports = {
        name: Port(other, tuple(model.output(other).shape), shapes[name])
        for name, other in zip(OUTPUTS, theirs, strict=True)
    }
    for name, port in ports.items():
        if not fits(port.shape, port.their_shape):
            raise _not_ours(f"{name} of {channels_last(port.shape)}", port.their_shape)
    return ports


def _not_ours(expected: str, got: object) -> BackendError:
    return BackendError(f"Expected encoder.hef with {expected}, got {got}.", code="backend.model")


# --- what went wrong ---


def _let_go(error: Exception) -> None:
    """Whoever keeps the error, as the worker does to show it, must not keep the model and with it the device."""
    traceback.clear_frames(error.__traceback__)


def _errors(hailo: Any) -> tuple[type[Exception], ...]:
    """HailoRTException of the Python layer, and what passes it by unwrapped: VDevice.release, Device.scan."""
    return (hailo.HailoRTException, hailo.pyhailort._pyhailort.HailoRTStatusException)


def _status(error: BaseException) -> int:
    """The hailo_status behind an exception of HailoRT, 0 if it has none."""
    for one in (error, error.__cause__):
        if one is not None and one.args and str(one.args[0]).isdigit():
            return int(one.args[0])
    return 0


def _failure(hailo: Any, error: Exception, code: str, message: str) -> BackendError:
    """In our words. code, message: for a status that has none of its own here."""
    status = _status(error)
    if status == OUT_OF_DEVICES:
        return _no_free_device(hailo)
    code, message = STATUSES.get(status, (code, f"{message[:-1]} (status {status})."))
    return BackendError(message, code=code)


def _no_free_device(hailo: Any) -> BackendError:
    """HailoRT says the same when there is no device at all and when another process has it."""
    try:
        found = hailo.Device.scan()
    except _errors(hailo):
        found = []
    if found:
        return BackendError(BUSY, code="backend.busy")
    return BackendError("There is no Hailo device in this box.", code="backend.absent")
