"""Build every plan the board wants, try each, keep the better one, and write down which and why.

Nothing of TensorRT or CUDA is loaded in this process: children do all of it. As a program it is what the worker starts
beside its reading, at the lowest priority; it ends with its standard input:

    python -m edge.reading.backends.tensorrt_engine BUNDLE_DIR MANIFEST_SHA256 SETUP
"""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path
from typing import Final

from edge.bundle import Bundle, load_bundle
from edge.closed import ClosedError, build
from edge.errors import BackendError, RadboxError, StorageError
from edge.reading.backends.setup import Setup, setup_from_json
from edge.reading.backends.tensorrt_cache import SCHEMA, Cache, Choice, Trial, failed, storage_refusal
from edge.reading.backends.tensorrt_children import Cancelled, Report, ask, never, silent, told_to_stop
from edge.reading.backends.tensorrt_choice import choose
from edge.reading.backends.tensorrt_key import Facts, PlanSpec, builder_flags, choice_key, plan_specs
from edge.store_paths import boot_id

FACTS_TIMEOUT_S: Final = 120.0
TRIAL_TIMEOUT_S: Final = 120.0
LOWEST_PRIORITY: Final = 19
# After these nothing was learnt of the plans, and nothing is written down.
_NOT_A_VERDICT: Final = frozenset(
    {"tensorrt.cancelled", "tensorrt.not-kept", "tensorrt.busy", "storage.full", "storage.failed"}
)


def make(
    bundle: Bundle, setup: Setup, report: Report = silent, cancelled: Cancelled = never, *, again: bool = False
) -> Choice:
    """Build, try, choose, keep. again: build also what is kept already.

    Raises BackendError: tensorrt.no-cache, tensorrt.busy, tensorrt.cancelled, tensorrt.not-kept (disk), backend.absent,
    cuda.*. Where every plan is bad the choice says so and is kept, so that the box does not build it all day long.
    """
    if not setup.cache:
        raise BackendError("There is no folder to keep an engine in.", code="tensorrt.no-cache")
    cache = Cache(Path(setup.cache))
    try:
        with cache.building():
            facts = box_facts_of(bundle, setup)
            specs = plan_specs(bundle, setup, facts)
            trials = tuple(_one(cache, bundle, setup, spec, report, cancelled, again) for spec in specs)
            choice = _decided(trials, facts, setup)
            cache.keep_choice(choice_key(bundle, setup, specs), choice)
            cache.prune()
            return choice
    except StorageError as error:
        raise storage_refusal(error) from error


def box_facts_of(bundle: Bundle, setup: Setup) -> Facts:
    """This box, asked in a child. Raises BackendError."""
    try:
        return build(Facts, ask(bundle, setup, ("facts",), FACTS_TIMEOUT_S), "facts")
    except ClosedError as error:
        raise BackendError(f"TensorRT's facts are not as expected: {error}", code="tensorrt.no-answer") from error


def try_plan(bundle: Bundle, setup: Setup, trial: Trial) -> Trial:
    """The same plan, tried afresh in a child; `code` says why where it failed."""
    try:
        answer = ask(bundle, setup, ("trial", trial.precision), TRIAL_TIMEOUT_S)
        return build(Trial, {**vars(trial), "code": "", "message": "", **answer}, "trial")
    except ClosedError as error:
        return failed(trial, BackendError(f"The trial's answer is not as expected: {error}", code="tensorrt.no-answer"))
    except BackendError as error:
        return failed(trial, error)


def _one(
    cache: Cache, bundle: Bundle, setup: Setup, spec: PlanSpec, report: Report, cancelled: Cancelled, again: bool
) -> Trial:
    """Build one plan, or take the one that is kept, and try it."""
    blank = Trial(spec.precision, spec.file, spec.emission, spec.key, "", 0, 0.0)
    kept = None if again else cache.measured(spec.key)
    if kept is None:
        words = ("build", spec.precision)

        def told(phase: str, done: int, of: int) -> None:
            report(f"{spec.precision}: {phase}", done, of)

        try:
            answer = ask(bundle, setup, words, setup.build_timeout_s, told, cancelled)
            kept = build(Trial, {**vars(blank), **answer}, "built")
        except ClosedError as error:
            return failed(blank, BackendError(f"The build's answer is not as expected: {error}"))
        except BackendError as error:
            if error.code in _NOT_A_VERDICT:
                raise
            return failed(blank, error)
    return try_plan(bundle, setup, kept)


def _decided(trials: tuple[Trial, ...], facts: Facts, setup: Setup) -> Choice:
    kept, why = choose(trials)
    code = "" if kept else next((trial.code for trial in trials if trial.code), "tensorrt.no-plan")
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return Choice(SCHEMA, kept or "", why, code, boot_id(), now, facts, builder_flags(setup), trials)


def main(bundle_path: str, manifest_sha256: str, setup_line: str) -> int:
    """See the module docstring. 1 and one line "code message" where no engine came of it."""
    os.nice(LOWEST_PRIORITY)
    try:
        bundle = load_bundle(Path(bundle_path), trusted_manifest_sha256=manifest_sha256)
        choice = make(bundle, setup_from_json(setup_line), cancelled=told_to_stop)
    except RadboxError as error:
        sys.stdout.write(f"{error.code} {error.message}\n")
        return 1
    sys.stdout.write(f"{choice.code or 'ok'} {choice.why}\n")
    return 0 if choice.kept else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
