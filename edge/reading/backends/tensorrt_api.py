"""The door to NVIDIA's `tensorrt` package, which comes with the board's system (JetPack) and is never bundled.

Only what 10.3, 10.13, 10.16 and 11.4 have in common is called (tools/check_tensorrt looks every name up in the real
bindings): no calibrators, no precision flags, no implicit types. Names of variables are the key to that look-up:
`builder`, `network`, `parser`, `problem`, `config`, `timing_cache`, `host_memory`, `runtime`, `engine`, `context`.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from edge.errors import BackendError

PACKAGE: Final = "tensorrt"
KEPT_MESSAGES: Final = 20
LONGEST_MESSAGE: Final = 300  # characters

# What TensorRT's log says -> our code and sentence. Every phrase was seen in a log or a report of its users.
_CAUSES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "libnvinfer_builder_resource",
        "tensorrt.builder-resource",
        "TensorRT's builder resources for this GPU are not installed: install the system's TensorRT packages in full.",
    ),
    (
        "BuildCanceled",
        "tensorrt.cancelled",
        "The building of the engine was cancelled.",
    ),
    (
        "CUDA initialization failure",
        "cuda.no-device",
        "TensorRT found no GPU that it can use.",
    ),
    (
        "out of memory",
        "tensorrt.out-of-memory",
        "There is not enough memory to build the engine: stop other programs or lower accelerator.workspace_bytes.",
    ),
    (
        "OutOfMemory",
        "tensorrt.out-of-memory",
        "There is not enough memory to build the engine: stop other programs or lower accelerator.workspace_bytes.",
    ),
)


def import_tensorrt() -> Any:
    """The module. Raises BackendError `backend.absent` where it is not installed or does not load."""
    try:
        return importlib.import_module(PACKAGE)
    except (ImportError, OSError) as error:
        message = "TensorRT's Python package is not installed; it comes with the board's system (JetPack)."
        raise BackendError(message, code="backend.absent") from error


def make_log(trt: Any) -> Any:
    """An ILogger that keeps the last warnings and errors in its list `said`; it must outlive what was made with it."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, also from threads of its own."""
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.said = [*self.said[1 - KEPT_MESSAGES :], message]

    return Log()


def refusal(said: list[str], code: str, fallback: str) -> BackendError:
    """The error behind a call that returned nothing. said: TensorRT's log; fallback: our words where it names none."""
    whole = "\n".join(said)
    for phrase, known, message in _CAUSES:
        if phrase in whole:
            return BackendError(message, code=known)
    last = f" TensorRT: {said[-1][:LONGEST_MESSAGE]}" if said else ""
    return BackendError(f"{fallback}{last}", code=code)
