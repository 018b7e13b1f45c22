"""`radbox selftest`: proof that this very box reads, on its own board, with nothing but what is installed.

Kernels against their definition, the model's signature and hashes, every backend with the golden case, storage where
the data will lie, and a whole study: a computed chest as a DICOM file, decoded in the child, read into a report. No
service need run, none is disturbed, and nothing is left behind. `radbox doctor` looks at the surroundings instead.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edge import durable
from edge.board import Board
from edge.bundle import Bundle, load_bundle
from edge.engine_command import kept_choice, told_of
from edge.errors import RadboxError
from edge.reading.backends import probe_in_child
from edge.reading.backends.setup import Setup, board_setup
from edge.reading.backends.tensorrt_engine import try_plan
from edge.reading.decode_child import Decoder
from edge.reading.load import load_reader
from edge.reading.ops import Guarded, load_kernels
from edge.reading.ops.shape import DecoderShape
from edge.reading.radiograph import F32, Refusal, Study
from edge.store import open_store

FINDING: Final = "effusion"
SMALL: Final = DecoderShape(vocabulary=12, width=32, layers=2, heads=4, ffn=48, positions=8, channels=32)
KERNEL_ERROR: Final = 1e-5  # normalised, float32 against float32
FAILED: Final = "selftest.failed"
ON_CPU: Final = "selftest.decoder-on-cpu"


@dataclass(frozen=True)
class Step:
    """One thing proved or not. `code`: stable, "" when passed; `seconds`: how long it took.

    needed: False for one of several backends: the box passes over a backend that fails, as long as another is left;
    and for a decoder that computes right, but on the CPU, since its accelerator is not there.
    """

    name: str
    passed: bool
    message: str
    seconds: float
    code: str = ""
    needed: bool = True


def main(board: Board, as_json: bool) -> int:
    """Prove each thing and print it; 1 if any failed that the box needs, else 0."""
    steps = []
    for step in run(board):
        steps.append(step)
        if not as_json:
            verdict = "ok" if step.passed else "FAIL" if step.needed else "warn"
            print(f"{verdict:4s}  {step.name:10s} {step.seconds:6.2f} s  {step.message}")
    passed = all(step.passed or not step.needed for step in steps)
    if as_json:
        print(json.dumps({"passed": passed, "steps": [dataclasses.asdict(step) for step in steps]}, indent=1))
    return 0 if passed else 1


def run(board: Board) -> Iterator[Step]:
    """Every step in order; one that fails stops none of the others."""
    kernels = _timed("kernels", partial(_kernels, board))
    yield dataclasses.replace(kernels, needed=kernels.code != ON_CPU)
    yield _timed("bundle", partial(_bundle, board))
    backends = [_timed(name, partial(_backend, board, name)) for name in board.worker.backends]
    enough = any(step.passed for step in backends)
    yield from (dataclasses.replace(step, needed=not enough) for step in backends)
    yield _timed("storage", partial(_storage, board))
    yield _timed("study", partial(_study, board))


def _timed(name: str, prove: Callable[[], str]) -> Step:
    began_s = time.monotonic()
    try:
        message, code = prove(), ""
    except RadboxError as error:
        message, code = error.message, error.code
    return Step(name, not code, message, round(time.monotonic() - began_s, 3), code)


def _kernels(board: Board) -> str:
    """A small decoder of fixed random weights: the logits of the board's kernels and of their definition."""
    kernels = load_kernels(board.worker.kernels)
    rng = np.random.default_rng(5)
    weights = {name: _spread(rng, shape) for name, shape in SMALL.weight_shapes().items()}
    tokens, masks = _spread(rng, (256, SMALL.channels)), rng.random((3, 16, 16), np.float32)
    sessions = []
    for operators in (kernels, load_kernels("numpy")):
        session = operators.decoder(SMALL, weights)
        session.begin(tokens, operators.anatomical_bias_f32(masks, (2.2, 1.1), 1.0))
        sessions.append(session)
    worst = 0.0
    for token in range(SMALL.positions):
        found, wanted = (session.step(token)[0] for session in sessions)
        worst = max(worst, float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    limit = kernels.error_limit if isinstance(kernels, Guarded) else KERNEL_ERROR
    if not worst <= limit:
        message = f"expected the kernels {kernels.name!r} within {limit:g} of their definition, got {worst:.3g}"
        raise RadboxError(message, code=FAILED)
    if isinstance(kernels, Guarded) and kernels.fault:
        raise RadboxError(
            f"{kernels.name!r} computes in place of {board.worker.kernels!r}: {kernels.fault}", code=ON_CPU
        )
    return f"{kernels.name!r} within {worst:.1e} of their definition"


def _spread(rng: np.random.Generator, shape: tuple[int, ...]) -> F32:
    return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), np.float32)


def _bundle(board: Board) -> str:
    bundle = load_bundle(board.worker.bundle)
    return f"{bundle.manifest.id} {bundle.manifest.version}: signature and {len(bundle.manifest.files)} files are right"


def _backend(board: Board, name: str) -> str:
    bundle = load_bundle(board.worker.bundle)
    setup = dataclasses.replace(board_setup(board), backend=name)
    probe_in_child(name, bundle, setup)
    return f"passes the golden case{_engine(bundle, setup) if name == 'tensorrt' else ''}"


def _engine(bundle: Bundle, setup: Setup) -> str:
    """Which plan TensorRT reads with on this box and why, and every plan of it tried once more."""
    choice = kept_choice(bundle, setup)
    if choice is None:
        raise RadboxError("expected the engine that was just used, got none", code=FAILED)
    again = dataclasses.replace(choice, trials=tuple(try_plan(bundle, setup, trial) for trial in choice.trials))
    told = "; ".join(told_of(again))
    return f"; {told}. Nothing but this step, on the board itself, proves TensorRT: other checks never ran an engine."


def _storage(board: Board) -> str:
    """A file and a database row, durable, in a folder of their own where the data lie or will lie."""
    content = os.urandom(1 << 16)
    with tempfile.TemporaryDirectory(prefix=".selftest-", dir=_nearest(board.data_dir)) as name:
        folder = Path(name)
        durable.write_file(folder / "file", content)
        with closing(open_store(folder / "box")) as store:
            store.add_event("selftest", "a row")
        with closing(open_store(folder / "box")) as store:
            events = [event.code for event in store.events(limit=1)]
        if (folder / "file").read_bytes() != content or events != ["selftest"]:
            raise RadboxError("expected a file and a row to be read as they were written, got others", code=FAILED)
    return "a file and a row were written durably and read again"


def _study(board: Board) -> str:
    """Two computed chests that differ in an effusion: DICOM files, decoded in the child, read by the model at work."""
    from edge.simulate.lesions import Lesion
    from edge.simulate.objects import sample_dataset, save_file
    from edge.simulate.phantom import PhantomOptions

    worker = board.worker
    reader = load_reader(board).reader
    scores = []
    with (
        tempfile.TemporaryDirectory(prefix="radbox-selftest-") as name,
        Decoder(timeout_s=worker.decode_timeout_s, memory_bytes=worker.decode_memory_bytes) as decoder,
    ):
        for lesion in (None, Lesion(FINDING, "right", "lower", 0.8)):
            image = Path(name, "chest.dcm")
            save_file(sample_dataset(PhantomOptions(seed=1, lesion=lesion, detail="fast")), image)
            outcome = reader.read(Study(tuple(decoder.read(image)))).outcome
            if isinstance(outcome, Refusal):
                message = f"expected a draft of a computed chest, got a refusal: {outcome.message}"
                raise RadboxError(message, code=FAILED)
            scores.append(outcome.scores[FINDING])
    without, with_it = scores
    told = f"{FINDING} {without:.3f} without, {with_it:.3f} with one, on {reader.encoder.name}"
    if not with_it > without:
        raise RadboxError(f"expected a higher score of a chest with {FINDING}, got {told}", code=FAILED)
    return f"two computed chests became drafts: {told}"


def _nearest(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
