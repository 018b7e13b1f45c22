"""Rockchip's NPU (RK3588) through rknn-toolkit-lite2: runs encoder.rknn.

Source: rknnlite/api/rknn_lite.py of the wheels 2.3.0, 2.3.2 and 2.5.0 (signatures in tests/npu_rknnlite_api.json), and
rknn_api.h of librknnrt (return codes). What the package does beside its documentation was found out by running those
wheels under emulation over a library of our own in the place of librknnrt.so (tests/npu_emulated.py). Not run on a
board.

- `RKNNLite.inference` drops the return code of rknn_run: a run that failed hands out the numbers of the picture before.
  So its three steps are taken here one by one, and the code of the second is looked at.
- It says why it failed only in its log, and renames Python's log levels for the whole process.
- `init_runtime` raises AttributeError where librknnrt.so is older than the package.
- A list given as data_type or data_format is written to.
"""

from __future__ import annotations

import importlib
import logging
import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import OUTPUTS
from edge.reading.backends.npu import compiled_file, output_shapes
from edge.reading.backends.setup import Setup
from edge.reading.radiograph import F32

EMISSION = "rknn"
MAKER = "tools/compile_rknn"
LOGGER = "acuityLogger"  # rknnlite.api.rknn_log
DRIVER = Path("/sys/bus/platform/drivers/RKNPU")  # name of the platform driver in Rockchip's kernel
CORES: Final[Mapping[str, str]] = {
    "auto": "NPU_CORE_AUTO",
    "0": "NPU_CORE_0",
    "1": "NPU_CORE_1",
    "2": "NPU_CORE_2",
    "0_1": "NPU_CORE_0_1",
    "0_1_2": "NPU_CORE_0_1_2",
}
"""Value of the board's option core_mask -> attribute of RKNNLite."""
_log = logging.getLogger("worker")

LOST = "The NPU stopped answering."
VERSIONS = "librknnrt.so and the NPU's driver do not belong together: expected those of one release."
# Codes of rknn_api.h.
CODES: Final[Mapping[str, tuple[int, str, str]]] = {
    "RKNN_ERR_FAIL": (-1, "backend.run", "The NPU failed while running the model."),
    "RKNN_ERR_TIMEOUT": (-2, "backend.lost", "The NPU gave no answer in time."),
    "RKNN_ERR_DEVICE_UNAVAILABLE": (-3, "backend.lost", LOST),
    "RKNN_ERR_MALLOC_FAIL": (-4, "backend.memory", "There is not enough memory for the NPU."),
    "RKNN_ERR_PARAM_INVALID": (-5, "backend.run", "The NPU's runtime refused a parameter."),
    "RKNN_ERR_MODEL_INVALID": (-6, "backend.load", "The NPU's runtime refused encoder.rknn: it is damaged."),
    "RKNN_ERR_CTX_INVALID": (-7, "backend.lost", LOST),
    "RKNN_ERR_INPUT_INVALID": (-8, "backend.model", "The NPU's runtime refused the picture's shape or type."),
    "RKNN_ERR_OUTPUT_INVALID": (-9, "backend.model", "The NPU's runtime refused to give the outputs."),
    "RKNN_ERR_DEVICE_UNMATCH": (-10, "backend.version", VERSIONS),
    "RKNN_ERR_INCOMPATILE_PRE_COMPILE_MODEL": (-11, "backend.version", VERSIONS),
    "RKNN_ERR_INCOMPATILE_OPTIMIZATION_LEVEL_VERSION": (-12, "backend.version", VERSIONS),
    "RKNN_ERR_TARGET_PLATFORM_UNMATCH": (
        -13,
        "backend.wrong-chip",
        "Expected an encoder.rknn for the chip of this board, got one for another chip.",
    ),
}
REFUSED = "The NPU's runtime refused encoder.rknn: expected a librknnrt.so not older than the compiler of the file."


class RknnEncoder:
    """Owns a context of the NPU until `close`. The runtime turns floats into the file's type and back."""

    name = "rknn"
    emission = EMISSION

    def __init__(self, lite: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._lite, self._shapes = lite, shapes
        self._give_back = weakref.finalize(self, lite.release)

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`. A failure closes the context, so that the NPU can be found again."""
        if not self._give_back.alive:
            raise BackendError(LOST, code="backend.lost")
        try:
            return self._checked(self._values(np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.float32)))
        except BackendError:
            self.close()
            raise

    def _values(self, image: F32) -> list[Any]:
        """image: (1, H, W, 1). Type and layout go as words: lists would be written to."""
        runtime = self._lite.rknn_runtime
        try:
            runtime.set_inputs([image], "float32", "nhwc")
            status = runtime.run()
            values = runtime.get_outputs() if status == 0 else []
        except Exception as error:  # what rknnlite raises is no narrower
            raise _failure(str(error), "The NPU failed while running the model.") from error
        if status:
            name = next((name for name, (code, *_) in CODES.items() if code == status), f"status {status}")
            raise _failure(name, "The NPU failed while running the model.")
        return list(values)

    def _checked(self, values: list[Any]) -> dict[str, F32]:
        expected, got = list(self._shapes.values()), [np.shape(value) for value in values]
        if got != expected:
            message = f"Expected encoder.rknn to give outputs of {expected}, got {got}."
            raise BackendError(message, code="backend.model")
        return {name: np.array(value, np.float32) for name, value in zip(OUTPUTS, values, strict=True)}

    def close(self) -> None:
        """Give the context back; harmless a second time."""
        try:
            self._give_back()
        except Exception as error:  # what rknnlite raises is no narrower
            _log.warning("the NPU could not be closed (%s)", _named(str(error)) or type(error).__name__)


def load(bundle: Bundle, setup: Setup) -> RknnEncoder:
    """Put encoder.rknn on the NPU.

    Raises BackendError: backend.no-model, backend.option (core_mask), backend.absent (no package, library or driver),
    backend.load, backend.lost, backend.memory, backend.version, backend.wrong-chip.
    """
    path = compiled_file(bundle, EMISSION, MAKER)
    cores = _cores(setup)
    with _own_level_names(), _said() as said:
        api = _package()
        lite = api.RKNNLite()
        if lite.load_rknn(str(path)):
            raise BackendError("The file encoder.rknn of the model bundle cannot be read.", code="backend.load")
        try:
            failed = lite.init_runtime(core_mask=getattr(api.RKNNLite, CORES[cores]))
        except AttributeError as error:  # of ctypes: the library has not all the functions that the package calls
            lite.release()
            message = "librknnrt.so is older than the package rknn-toolkit-lite2: expected those of one release."
            raise BackendError(message, code="backend.version") from error
        if failed:
            lite.release()
            raise _no_runtime("\n".join(said), cores)
    return RknnEncoder(lite, output_shapes(bundle))


def _cores(setup: Setup) -> str:
    """Of the board's options "core_mask=..." or "rknn:core_mask=..."; the others are those of delegates."""
    cores = "auto"
    for option in setup.options:
        key, _, value = option.partition("=")
        if key.strip() in ("core_mask", "rknn:core_mask"):
            cores = value.strip()
    if cores not in CORES:
        message = f"Expected the option core_mask to be one of {', '.join(CORES)}, got {cores!r}."
        raise BackendError(message, code="backend.option")
    return cores


def _package() -> Any:
    try:
        return importlib.import_module("rknnlite.api")
    except ImportError as error:
        raise BackendError("The Python package rknn-toolkit-lite2 is not installed.", code="backend.absent") from error


# --- what went wrong ---


class _Listener(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


@contextmanager
def _said() -> Iterator[list[str]]:
    """What rknnlite warns of meanwhile."""
    said: list[str] = []
    listener = _Listener(said)
    logging.getLogger(LOGGER).addHandler(listener)
    try:
        yield said
    finally:
        logging.getLogger(LOGGER).removeHandler(listener)


@contextmanager
def _own_level_names() -> Iterator[None]:
    """Keep Python's names of the log levels, which rknnlite shortens to one letter for everybody."""
    names = {n: logging.getLevelName(n) for n in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)}
    try:
        yield
    finally:
        for number, name in names.items():
            logging.addLevelName(number, name)


def _no_runtime(said: str, cores: str) -> BackendError:
    """Why `init_runtime` failed, from what it logged."""
    if "Can not find dynamic library" in said:
        message = "The NPU's library librknnrt.so is not installed in /usr/lib."
        return BackendError(message, code="backend.absent")
    if "set npu core mode" in said:
        return BackendError(f"The NPU refused the option core_mask={cores}.", code="backend.option")
    if not DRIVER.exists():
        message = "The kernel of this board has no RKNPU driver: expected the board maker's kernel."
        return BackendError(message, code="backend.absent")
    if _named(said) in ("", "RKNN_ERR_FAIL"):
        # So it says when the library is older than the compiler: airockchip/rknn-toolkit2, issue 281.
        return BackendError(REFUSED, code="backend.load")
    return _failure(said, REFUSED)


def _failure(said: str, message: str) -> BackendError:
    """In our words. message: for what has no code."""
    name = _named(said)
    if name in CODES:
        _, code, message = CODES[name]
        return BackendError(message, code=code)
    return BackendError(message, code="backend.run")


def _named(said: str) -> str:
    """The last return code that a text names; "" if it names none."""
    return next(reversed(re.findall(r"RKNN_ERR_[A-Z_]+", said)), "")
