"""Slots and board -> a Reader that passed its golden case: the active model, else the one before, else the factory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.board import Board
from edge.bundle import Bundle
from edge.errors import BackendError, BundleError, RadboxError
from edge.reading.backends import PROBE_TIMEOUT_S, open_encoder
from edge.reading.backends.setup import board_setup
from edge.reading.decoding import board_decoding
from edge.reading.pipeline import Reader
from edge.slots import DAMAGED, FACTORY, Slots, SlotState

OnSlot = Callable[[str], None]
OnBackend = Callable[[str, BackendError | None], None]
STATE = "state"  # in the place of a slot's name: state.json itself was passed over


@dataclass(frozen=True)
class Loaded:
    """A reader, and what was passed over for it, each with its reason.

    passed_over: backends that the board prefers to the one at work. slot: where the model came from.
    slots_passed_over: models that the box prefers to the one at work, or STATE.
    """

    reader: Reader
    passed_over: tuple[tuple[str, BackendError], ...]
    slot: str = FACTORY
    slots_passed_over: tuple[tuple[str, RadboxError], ...] = ()


def candidates(state: SlotState) -> tuple[str, ...]:
    """Slots in the order in which they may run."""
    return tuple(dict.fromkeys((state.active, state.previous, FACTORY)))


def _no_slot(_slot: str) -> None:
    """Default for `on_slot`: nobody is told."""


def _no_backend(_name: str, _error: BackendError | None) -> None:
    """Default for `on_backend`: nobody is told."""


def load_reader(
    board: Board,
    on_slot: OnSlot = _no_slot,
    *,
    on_backend: OnBackend = _no_backend,
    probe_timeout_s: float = PROBE_TIMEOUT_S,
) -> Loaded:
    """Verify and open the first model that a backend of the board can run; one that cannot never halts the box.

    on_slot: called before each model is tried, with its slot. on_backend: see `edge.reading.backends.open_encoder`.
    Raises BundleError, BackendError (of the last model) only when none can run.
    """

    def load(slot: str) -> Loaded:
        on_slot(slot)
        try:
            loaded = open_reader(board, slots.open(slot), on_backend, probe_timeout_s)
        except OSError as error:  # a storage that does not give the bytes back
            message = f"The model's files cannot be read: {type(error).__name__}."
            raise BundleError(message, code="bundle.unreadable") from error
        return Loaded(loaded.reader, loaded.passed_over, slot, tuple(passed_over))

    slots = Slots(board.data_dir, board.worker.bundle)
    state = slots.read()
    passed_over: list[tuple[str, RadboxError]] = []
    if state.last and state.last.code == DAMAGED:
        passed_over.append((STATE, BundleError(state.last.message, code=DAMAGED)))
    *others, last = candidates(state)
    for slot in others:
        try:
            return load(slot)
        except (BundleError, BackendError) as error:
            passed_over.append((slot, error))
    return load(last)


def open_reader(
    board: Board,
    bundle: Bundle,
    on_backend: OnBackend = _no_backend,
    probe_timeout_s: float = PROBE_TIMEOUT_S,
) -> Loaded:
    """A reader of this bundle, verified already. Raises BundleError, BackendError."""
    opened = open_encoder(
        bundle,
        board.worker.backends,
        board_setup(board),
        probe_timeout_s=probe_timeout_s,
        on_backend=on_backend,
    )
    return Loaded(Reader(bundle, opened.encoder, board_decoding(board)), opened.passed_over)
