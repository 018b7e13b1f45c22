"""A delegate's shared library: loaded, created and applied, with every way it fails told apart.

The runtimes' own `load_delegate` writes a traceback to standard error when a library cannot be opened or is no
delegate, because its destructor then misses what its constructor did not reach; so both are looked at before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge.errors import BackendError
from edge.reading.backends.tflite import Runtime, allocate, make_interpreter, own_operators

# tensorflow/lite/delegates/external/external_delegate_interface.h
SYMBOLS: Final = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
LONGEST_FOREIGN_TEXT = 160


class Library:
    """One delegate's library at `path`."""

    def __init__(self, path: Path) -> None:
        """Raises BackendError (delegate.not-loadable)."""
        self._path = path
        try:
            library = ctypes.PyDLL(str(path))
        except OSError as error:
            message = f"The delegate's library cannot be loaded: {foreign(str(error))}"
            raise BackendError(message, code="delegate.not-loadable") from error
        missing = [symbol for symbol in SYMBOLS if not hasattr(library, symbol)]
        if missing:
            message = f"The library is no TFLite delegate: expected the function {missing[0]}, got none."
            raise BackendError(message, code="delegate.not-loadable")

    def create(self, runtime: Runtime, options: Mapping[str, str]) -> Any:
        """The delegate itself. Raises BackendError (delegate.refused) with its maker's words."""
        try:
            return runtime.interpreter.load_delegate(str(self._path), dict(options))
        except ValueError as error:
            _, _, words = str(error).partition("\n")
            reason = foreign(words) or "no reason given"
            raise BackendError(f"The accelerator cannot be used: {reason}", code="delegate.refused") from error

    def apply(self, runtime: Runtime, model: Path, threads: int, delegate: Any) -> Any:
        """An interpreter with the delegate's nodes replaced, nothing allocated yet.

        A delegate that fails while it takes its nodes makes the whole interpreter fail; the box then goes on without
        it, with the board's next backend. Raises BackendError (backend.load, delegate.not-applied).
        """
        make_interpreter(runtime, model, threads)  # a file that the runtime refuses is not the delegate's fault
        try:
            return make_interpreter(runtime, model, threads, [delegate, *own_operators(runtime, model)])
        except BackendError as error:
            raise _not_applied(error) from error

    def set_up(self, interpreter: Any) -> None:
        """Memory for the tensors. A delegate that lets tensors change their size prepares its nodes only now.

        Raises BackendError (delegate.not-applied).
        """
        try:
            allocate(interpreter)
        except BackendError as error:
            raise _not_applied(error) from error


def _not_applied(error: BackendError) -> BackendError:
    message = f"The accelerator refused the model: {foreign(str(error.__cause__))}"
    return BackendError(message, code="delegate.not-applied")


def foreign(text: str) -> str:
    """Words of a maker's library, fit for a log: one line, printable, not long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= LONGEST_FOREIGN_TEXT else f"{line[:LONGEST_FOREIGN_TEXT]} ..."
