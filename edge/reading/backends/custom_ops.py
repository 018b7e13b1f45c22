"""The delegate that computes our composites and custom operators inside a TFLite graph with the native kernels.

It is libradbox_tflite.so (kernels/tflite), a TFLite external delegate. docs/tflite-custom-op.md tells what it takes.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import BackendError
from edge.reading.ops import native

LIBRARY = "libradbox_tflite.so"

CROSS_ATTENTION = "radbox.gated_cross_attention"
SELECTIVE_SCAN = "radbox.selective_scan"
OPERATORS = (CROSS_ATTENTION, SELECTIVE_SCAN)
COMPOSITE_VERSION = 1
GATE = "scaled-tanh"
"""The one form of gate: tanh(gate_weight . a + gate_bias) * gate_scale."""


@dataclass(frozen=True)
class CustomOps:
    """`delegate`: an object for the interpreter's `experimental_delegates`, or None; then `reason` says why."""

    delegate: Any
    reason: str


def operators_in(model: bytes) -> tuple[str, ...]:
    """Which of our operators' names a TFLite file holds; without any the delegate has nothing to take.

    A plain search: names are stored as they are, and an attached delegate decides by the parsed graph.
    """
    return tuple(name for name in OPERATORS if name.encode() in model)


def library_path() -> Path:
    """RADBOX_TFLITE_LIBRARY, else beside the kernels' library (a checkout's build/kernels, or the package).

    Raises BackendError: kernels.missing (as `edge.reading.ops.native.library_path`), backend.absent.
    """
    named = os.environ.get("RADBOX_TFLITE_LIBRARY")
    place = Path(named) if named else native.library_path().with_name(LIBRARY)
    if place.is_file():
        return place
    raise BackendError(
        f"expected the TFLite delegate at {place}, got no file; build it with {native.BUILD_COMMAND}",
        code="backend.absent",
    )


def custom_ops_library(runtime: Any) -> CustomOps:
    """The delegate, loaded by `runtime` (the module `ai_edge_litert.interpreter` or `tflite_runtime.interpreter`).

    One delegate may serve several interpreters, each on a thread of its own. The kernels' library that this process
    uses otherwise is loaded first, so that the delegate shares it: its chosen set of kernels is the process's.
    """
    try:
        place = library_path()
        for library in (native.library_path(), place):  # the runtime's own loader trips over one that does not open
            ctypes.CDLL(str(library))
        return CustomOps(runtime.load_delegate(str(place)), "")
    except BackendError as error:
        return CustomOps(None, error.message)
    except (OSError, ValueError) as error:
        return CustomOps(None, f"expected {LIBRARY} to load, got: {error}")


def nodes_taken() -> int:
    """Nodes of any graph that the delegate took over since its library was loaded into this process."""
    return _count("radbox_tflite_nodes_taken")


def nodes_computed() -> int:
    """How often it computed one of them."""
    return _count("radbox_tflite_nodes_computed")


def _count(function: str) -> int:
    bound = getattr(ctypes.CDLL(str(library_path())), function)
    bound.argtypes, bound.restype = [], ctypes.c_int64
    return int(bound())
