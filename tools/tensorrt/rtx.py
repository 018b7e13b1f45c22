"""The adapter's own build, with NVIDIA's parser and an ahead-of-time builder that need no GPU: TensorRT-RTX.

    python -m tools.tensorrt.rtx

Its plans are for desktop GPUs and are thrown away; it has neither a Jetson's compute capability nor a timing cache
without a GPU. What it proves: the parser takes our files as a strongly typed network, the builder goes through, a
build can be cancelled, and what must be refused is refused with our own codes.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.bundle import load_bundle
from edge.errors import BackendError
from edge.reading.backends.setup import Setup
from edge.reading.backends.tensorrt_build import Wanted, build_plan
from edge.reading.backends.tensorrt_child import wanted
from edge.reading.backends.tensorrt_key import builder_flags
from tools.tensorrt.files import BUNDLE, bad_files, faults, model_files

FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "tensorrt" / "rtx"
CAPABILITY: Final = "SM86"  # of the same family as an Orin's 8.7, which TensorRT-RTX does not have
CANCEL_AFTER: Final = 5  # steps


def load_rtx(folder: Path = FOLDER) -> Any:
    """The bindings; their libraries are loaded first. Raises ImportError."""
    sys.path.insert(0, str(folder))
    importlib.import_module("tensorrt_rtx_libs")
    return importlib.import_module("tensorrt_rtx_bindings")


def ahead_of_time(trt: Any, config: Any) -> None:
    """In the place of `Timing.use`: build for a GPU that is not there."""
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, CAPABILITY), 0)


class Checks:
    """Counts what went wrong, and tells of everything."""

    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self._wanted = wanted(load_bundle(BUNDLE))
        self.failures = 0

    def builds(self, name: str, path: Path) -> None:
        """A good file becomes a plan."""
        began_s, steps = time.monotonic(), [0]

        def count(_phase: str, _done: int, _of: int) -> None:
            steps[0] += 1

        try:
            plan = self._build(path, count)
            well = len(plan) > 0 and steps[0] > 0
            words = f"plan of {len(plan)} bytes, {steps[0]} reports of progress, {time.monotonic() - began_s:.1f} s"
        except BackendError as error:
            well, words = False, f"{error.code}: {error.message}"
        wrong = faults(path)
        self._tell(well and not wrong, f"{name}: {words}{', export check: ' + wrong[0] if wrong else ''}")

    def cancels(self, path: Path) -> None:
        """A build that is told to stop does."""
        steps = [0]

        def count(_phase: str, _done: int, _of: int) -> None:
            steps[0] += 1

        self.refuses("cancelled", path, "tensorrt.cancelled", count, lambda: steps[0] >= CANCEL_AFTER)

    def refuses(
        self,
        name: str,
        path: Path,
        code: str,
        report: Callable[[str, int, int], None] = lambda _phase, _done, _of: None,
        cancelled: Callable[[], bool] = lambda: False,
        shape: Wanted | None = None,
    ) -> None:
        """A bad file, or one that is cancelled, ends with `code` and no plan."""
        try:
            self._build(path, report, cancelled, shape)
        except BackendError as error:
            self._tell(error.code == code, f"{name}: {error.code}: {error.message[:150]}")
        else:
            self._tell(False, f"{name}: expected {code}, got a plan")

    def _build(
        self,
        path: Path,
        report: Callable[[str, int, int], None],
        cancelled: Callable[[], bool] = lambda: False,
        shape: Wanted | None = None,
    ) -> bytes:
        flags = builder_flags(Setup())
        return build_plan(self._trt, path, shape or self._wanted, flags, ahead_of_time, report, cancelled)

    def _tell(self, well: bool, words: str) -> None:
        self.failures += not well
        print(f"{'ok' if well else 'FAIL':4s}  {words}")


def main() -> int:
    """See the module docstring. 1 where anything is not as it should be."""
    trt = load_rtx()
    print(f"TensorRT-RTX {trt.__version__}, ahead of time for {CAPABILITY}, no GPU")
    checks = Checks(trt)
    with tempfile.TemporaryDirectory() as name:
        files = model_files(Path(name))
        for file, path in files.items():
            checks.builds(file, path)
        first = next(iter(files.values()))
        checks.cancels(first)
        for what, path in bad_files(Path(name)).items():
            checks.refuses(what, path, "tensorrt.refused")
        checks.refuses("other shapes", first, "tensorrt.wrong-shape", shape=Wanted({"image": (1, 1, 8, 8)}, {}))
    return 1 if checks.failures else 0


if __name__ == "__main__":
    sys.exit(main())
