"""Which of the plans reads. Pure: trials in, a decision out.

int8 is not faster by nature: what stands around the quantisers can cost more than they save. So both plans are built
and timed on the box itself, and int8 is kept only if it was faster there and is within the bundle's golden tolerance
of float16.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.reading.backends.tensorrt_cache import Trial
from edge.reading.backends.tensorrt_key import Precision


def choose(trials: Sequence[Trial]) -> tuple[Precision | None, str]:
    """(precision of the plan to keep, why); (None, why not) where no plan passed the golden case."""
    good = {trial.precision: trial for trial in trials if not trial.code}
    bad = "; ".join(f"{trial.precision}: {trial.message}" for trial in trials if trial.code)
    if not good:
        return None, f"No engine is good enough. {bad}" if bad else "There is no engine to choose from."
    if "int8" not in good or "fp16" not in good:
        (only,) = good
        return only, f"{only} is the only one that passed. {bad}" if bad else f"{only} is the only one to build."
    int8, fp16 = good["int8"], good["fp16"]
    times = f"int8 {int8.p50_s * 1e3:.2f} ms, fp16 {fp16.p50_s * 1e3:.2f} ms"
    if int8.accuracy:
        return "fp16", f"int8 is too far from fp16: {int8.accuracy} ({times})"
    if int8.p50_s < fp16.p50_s:
        return "int8", f"int8 is faster and within the golden tolerance of fp16 ({times})"
    return "fp16", f"int8 is not faster ({times})"
