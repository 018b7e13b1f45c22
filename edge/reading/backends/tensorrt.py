"""TensorRT on the GPU of a Jetson: a plan that was built on this very box from the bundle's ONNX file.

Loading takes moments: where no plan is built yet it says so (`backend.not-built`), the next backend of the board reads,
and the box builds beside it (`tensorrt_background`). docs/tensorrt.md tells the whole.
"""

from __future__ import annotations

from pathlib import Path

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends.cuda_device import open_device
from edge.reading.backends.setup import Setup
from edge.reading.backends.tensorrt_api import import_tensorrt
from edge.reading.backends.tensorrt_cache import Cache
from edge.reading.backends.tensorrt_key import PlanSpec, box_facts, choice_key, plan_specs
from edge.reading.backends.tensorrt_run import LoadedPlan, TensorrtEncoder, wants_graph
from edge.store_paths import boot_id

NOT_BUILT = "backend.not-built"


def load(bundle: Bundle, setup: Setup) -> TensorrtEncoder:
    """The plan that was kept for this bundle, board and box.

    Raises BackendError: backend.absent, cuda.*, backend.not-built, tensorrt.plan-refused, tensorrt.context, and, until
    the next boot, whatever made every plan of the last build useless.
    """
    trt = import_tensorrt()
    device = open_device()  # first: without a driver TensorRT's own calls crash
    try:
        plan, emission = _kept(bundle, setup, plan_specs(bundle, setup, box_facts(trt.__version__, device.facts)))
        loaded = LoadedPlan(trt, device, plan, graph=wants_graph(setup))
    except BaseException:
        device.close()
        raise
    return TensorrtEncoder(loaded, emission, device.close)


def _kept(bundle: Bundle, setup: Setup, specs: tuple[PlanSpec, ...]) -> tuple[bytes, str]:
    """(plan, emission) that was chosen. Raises BackendError."""
    if not setup.cache:
        raise BackendError("There is no folder to keep an engine in.", code="tensorrt.no-cache")
    cache = Cache(Path(setup.cache))
    choice = cache.choice(choice_key(bundle, setup, specs))
    if choice is not None and not choice.kept and choice.boot == boot_id():
        raise BackendError(choice.why, code=choice.code)
    trial = choice.trial() if choice is not None else None
    plan = cache.plan(trial) if trial is not None else None
    if trial is None or plan is None:
        message = "The TensorRT engine for this model is not built yet; the box builds it beside its work, once."
        raise BackendError(message, code=NOT_BUILT)
    return plan, trial.emission
