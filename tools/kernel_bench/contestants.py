"""One operator by one set of ours, by numpy or by PyTorch; and the machine's limit for its bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edge.reading.ops import numpy_kernels
from edge.reading.ops.native import NativeKernels
from tools.kernel_bench.operators import Operator

TURN = (1, 4)
SAMPLE_S = 2e-4  # calls are repeated up to about this long, so that a look at the clock costs nothing
MOST_REPEATS = 2000


class Repeated:
    """A call, as often as a sample needs; `token` gives no time of its own, so that preempted samples are left out."""

    turn = TURN

    def __init__(
        self, name: str, kind: str, call: Callable[[], Any], before: Callable[[], None] = lambda: None
    ) -> None:
        """before: runs ahead of the calls of each sample."""
        self.name, self.kind = name, kind
        self._call, self._before = call, before
        before()
        call()
        began_s = time.perf_counter()
        call()
        self.repeats = max(1, min(MOST_REPEATS, int(SAMPLE_S / max(time.perf_counter() - began_s, 1e-7))))

    def rewind(self) -> None:
        """Every call is the same."""

    def token(self) -> None:
        self._before()
        for _ in range(self.repeats):
            self._call()


def ours(operator: Operator, kernels: NativeKernels) -> Repeated:
    """A set: it is chosen anew for each sample, since the choice is the process's."""
    name = kernels.name.encode()

    def choose() -> None:
        kernels.library.radbox_kernels_select(name)

    return Repeated(f"radbox {kernels.name}", "ours", lambda: operator.call(kernels), choose)


def peers(operator: Operator, torch: Any) -> list[Repeated]:
    """numpy's definition, and PyTorch where it is installed and has the operator."""
    found = []
    if hasattr(numpy_kernels, operator.name):
        found.append(Repeated("numpy", "numpy", lambda: operator.call(numpy_kernels)))
    if torch is not None and operator.torch is not None:
        found.append(Repeated(f"PyTorch {torch.__version__}", "torch", operator.torch(torch)))
    return found
