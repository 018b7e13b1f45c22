"""Which model the box runs: one small file, state.json, and the folders it points to.

    update/state.json               active, previous, trial, proposal, and what must never be taken back
    update/roots/<n>.root.json      every root newer than the factory's
    slots/<slot>/                   targets.json and the bundle's files; a slot is named by the sha256 of targets.json

What may follow what is decided in `edge.slot_state`; this file reads and writes. The factory bundle is part of the
system image, is never written and is what runs when nothing else may. Nothing here looks at a clock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge import durable, trust
from edge.bundle import Bundle, load_bundle
from edge.errors import BundleError, UpdateError
from edge.slot_state import (
    CRASHED,
    DAMAGED,
    FACTORY,
    FACTORY_STATE,
    PERSON,
    REVOKED_LIMIT,
    SLOW,
    Outcome,
    Proposal,
    SlotState,
    Trial,
    activate,
    crashed,
    damaged,
    good_case,
    in_use,
    is_slot,
    leave,
    parse_state,
    propose,
    revoke,
    roll_back,
    slow_case,
    state_bytes,
)
from edge.trust import LARGEST_METADATA_BYTES, FileEntry, Offer, Trusted

__all__ = [
    "CRASHED",
    "DAMAGED",
    "FACTORY",
    "FACTORY_STATE",
    "PERSON",
    "REVOKED_LIMIT",
    "SLOW",
    "Outcome",
    "Proposal",
    "SlotState",
    "Slots",
    "Trial",
    "activate",
    "crashed",
    "good_case",
    "in_use",
    "is_slot",
    "leave",
    "parse_state",
    "propose",
    "revoke",
    "roll_back",
    "slow_case",
    "state_bytes",
]

UPDATE: Final = Path("update")
SLOTS: Final = Path("slots")
STATE: Final = UPDATE / "state.json"
ROOTS: Final = UPDATE / "roots"
STARTING: Final = UPDATE / "starting"
TARGETS: Final = "targets.json"
LARGEST_STATE_BYTES: Final = 1 << 20
_CHUNK = 1 << 20


class Slots:
    """The slots of one box. Usable by several processes: every change happens under a lock on the folder update/."""

    def __init__(self, data_dir: Path, factory: Path) -> None:
        """factory: the folder of the bundle that belongs to the system image (the board's `worker.bundle`)."""
        self._data_dir = data_dir
        self._factory = factory

    def folder(self, slot: str) -> Path:
        """Where a slot lies. Raises BundleError for a name that is none."""
        if not is_slot(slot):
            raise BundleError("expected the name of a slot, got something else", code="update.path")
        return self._factory if slot == FACTORY else self._data_dir / SLOTS / slot

    def read(self) -> SlotState:
        """The state; the factory's where there is none yet, or a damaged one (`last.code` then says DAMAGED)."""
        try:
            return self._parse()
        except BundleError as error:
            return dataclasses.replace(FACTORY_STATE, last=Outcome(error.code, error.message))

    def _parse(self) -> SlotState:
        try:
            content = _read(self._data_dir / STATE, LARGEST_STATE_BYTES)
        except FileNotFoundError:
            return FACTORY_STATE
        except OSError as error:
            raise damaged() from error
        return parse_state(content)

    def change(self, decide: Callable[[SlotState], SlotState]) -> SlotState:
        """Read, decide, write; nobody else changes the state meanwhile. Returns the new state, durable.

        A model that passes its trial here raises the epoch to its own. Raises StorageFullError, StorageError, and
        what `decide` raises.
        """
        folder = self._data_dir / UPDATE
        durable.make_directory(folder)
        with durable.locked(folder):
            before = self.read()
            after = decide(before)
            if before.trial and not after.trial and after.active == before.trial.slot:
                offer = self.offer_under(after.active, after)
                after = dataclasses.replace(after, epoch=max(after.epoch, offer.epoch if offer else 0))
            if after != before:
                durable.write_file(self._data_dir / STATE, state_bytes(after))
            return after

    # --- trust ---

    def roots(self, state: SlotState) -> tuple[bytes, ...]:
        """The factory's root and those accepted since, oldest first; each was verified by the one before, now again.

        A damaged file ends the chain: what it would have vouched for is not trusted any more.
        """
        factory = trust.factory_root()
        chain = []
        for version in range(trust.root_version(factory) + 1, state.root_version + 1):
            try:
                chain.append(_read(self._data_dir / root_path(version), LARGEST_METADATA_BYTES))
            except OSError:
                break
        try:
            return (factory, *trust.verify_roots(factory, chain))
        except UpdateError:
            return (factory,)

    def trusted(self, state: SlotState) -> Trusted:
        """What an update is measured against. A model on trial counts for the epoch, though it has not raised it."""
        on_trial = self.offer_under(state.trial.slot, state) if state.trial else None
        return Trusted(
            root=self.roots(state)[-1],
            snapshot_version=state.snapshot_version,
            epoch=max(state.epoch, on_trial.epoch if on_trial else 0),
            versions=dict(state.versions),
            revoked=frozenset(state.revoked),
        )

    def keep_roots(self, roots: Sequence[bytes]) -> None:
        """Write newer roots, before the state that counts them. Raises StorageFullError, StorageError."""
        if roots:
            durable.make_directory(self._data_dir / ROOTS)
        for root in roots:
            durable.write_file(self._data_dir / root_path(trust.root_version(root)), root)

    def offer(self, slot: str) -> Offer | None:
        """What the signed metadata of a slot say of it (budgets, label).

        None for the factory and for a slot that may not be trusted.
        """
        return self.offer_under(slot, self.read())

    def offer_under(self, slot: str, state: SlotState) -> Offer | None:
        """The same if the state were `state`."""
        if slot == FACTORY:
            return None
        try:
            return self._verified(slot, state)
        except BundleError:
            return None

    def put_on_trial(self, state: SlotState, slot: str, outcome: Outcome) -> SlotState:
        """`state` with `slot` in use on probation and its version counted; pure but for reading the slot's offer."""
        offer = self.offer_under(slot, state)
        versions = dict(state.versions)
        if offer:
            versions[offer.id] = max(offer.version, versions.get(offer.id, 0))
        return dataclasses.replace(activate(state, slot), versions=versions, last=outcome)

    def barred(self, state: SlotState) -> frozenset[str]:
        """Slots in use that may not run if the state were `state`: no longer signed, revoked, or under the epoch."""
        return frozenset(slot for slot in in_use(state) if not self._may_run(slot, state))

    def _may_run(self, slot: str, state: SlotState) -> bool:
        try:
            check_allowed(state, self._verified(slot, state))
        except BundleError:
            return False
        return True

    def _verified(self, slot: str, state: SlotState) -> Offer:
        """The slot's metadata, signed as the newest root asks.

        A slot in use counts also under an older root that shares enough keys with the newest: replacing one lost key
        must not take the model away from the boxes that run it. What must go is revoked, or falls under the epoch.
        """
        try:
            content = _read(self.folder(slot) / TARGETS, LARGEST_METADATA_BYTES)
        except OSError as error:
            raise BundleError("The model's signed metadata are missing.", code="bundle.missing") from error
        if hashlib.sha256(content).hexdigest() != slot:
            raise BundleError("The model's signed metadata are damaged.", code="bundle.hash")
        newest, *older = reversed(self.roots(state))
        try:
            return trust.verify_targets(newest, content)
        except UpdateError as error:
            refused = error
        for root in older if slot in (state.active, state.previous) else ():
            if not _keys_replaced(root, newest):
                with suppress(UpdateError):
                    return trust.verify_targets(root, content)
        raise BundleError(refused.message, code=refused.code) from refused

    # --- bundles ---

    def open(self, slot: str) -> Bundle:
        """Verify everything about a slot and open it. Raises BundleError with the code of the first thing wrong."""
        if slot == FACTORY:
            return load_bundle(self._factory)
        state = self.read()
        offer = self._verified(slot, state)
        check_allowed(state, offer)
        folder = self.folder(slot)
        check_slot_files(folder, offer)
        bundle = load_bundle(folder, trusted_manifest_sha256=offer.manifest_sha256)
        unlisted = set(bundle.manifest.files) - {entry.name for entry in offer.files}
        if unlisted:
            raise BundleError("The model's manifest names a file that was not signed.", code="bundle.manifest")
        return bundle

    def open_best(self) -> tuple[str, Bundle, tuple[tuple[str, BundleError], ...]]:
        """The model to run: active, else previous, else the factory's; and what was passed over, with its reason.

        A damaged state.json is passed over under the name "state". Raises BundleError only when even the factory's
        bundle does not open.
        """
        passed_over: list[tuple[str, BundleError]] = []
        state = self.read()
        if state.last and state.last.code == DAMAGED:
            passed_over.append(("state", BundleError(state.last.message, code=DAMAGED)))
        for slot in dict.fromkeys((state.active, state.previous)):
            if slot == FACTORY:
                break
            try:
                return slot, self.open(slot), tuple(passed_over)
            except BundleError as error:
                passed_over.append((slot, error))
        return FACTORY, self.open(FACTORY), tuple(passed_over)

    def check_rollback(self, state: SlotState) -> None:
        """Pass if a person may go back to the previous model.

        Raises UpdateError (update.rollback-forbidden): there is none, it was revoked, is under the epoch or damaged.
        """
        if state.previous == state.active:
            message = "There is no earlier model to go back to."
            raise UpdateError(message, code="update.rollback-forbidden")
        try:
            self.open(state.previous)
        except BundleError as error:
            message = f"The box must not go back to the earlier model: {error.message}"
            raise UpdateError(message, code="update.rollback-forbidden") from error

    # --- the worker's sign of life while it loads a model on trial ---

    def starting(self, boot_id: str) -> bool:
        """Note that a worker now loads the active model. True if one died doing so in this boot: count it (`crashed`).

        Raises StorageFullError, StorageError.
        """
        state = self.read()
        mark = f"{boot_id} {state.active}\n".encode()
        path = self._data_dir / STARTING
        died = path.is_file() and _read(path, LARGEST_STATE_BYTES) == mark
        if state.trial and not died:
            durable.make_directory(path.parent)
            durable.write_file(path, mark)
        return died

    def started(self) -> None:
        """The model is loaded. Raises StorageError."""
        path = self._data_dir / STARTING
        if path.exists():
            durable.remove(path)


def check_allowed(state: SlotState, offer: Offer) -> None:
    """Pass if this box may still run what `offer` describes. Raises BundleError (update.revoked, update.epoch)."""
    if {offer.slot, offer.manifest_sha256} & set(state.revoked):
        raise BundleError("This model was withdrawn by those who made it.", code="update.revoked")
    if offer.epoch < state.epoch:
        message = f"This model belongs to security epoch {offer.epoch}; this box runs nothing under {state.epoch}."
        raise BundleError(message, code="update.epoch")


def _keys_replaced(older: bytes, newest: bytes) -> bool:
    """True if so few keys were carried over that the counters start again (`trust.after_roots`)."""
    return trust.after_roots(Trusted(older, 1, 1, {}, frozenset()), (newest,)).epoch == 0


def root_path(version: int) -> Path:
    """Where an accepted root lies, relative to the data folder."""
    return ROOTS / f"{version}.root.json"


def check_slot_files(folder: Path, offer: Offer) -> None:
    """Pass if every file of `offer` lies in `folder` as it was signed. Raises BundleError (bundle.*)."""
    for entry in offer.files:
        _verify_file(folder / entry.name, entry)


def _verify_file(path: Path, entry: FileEntry) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            while size == entry.size and (chunk := stream.read(_CHUNK)):
                digest.update(chunk)
    except OSError as error:
        raise BundleError(f"The model's file {entry.name!r} is missing.", code="bundle.file-missing") from error
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise BundleError(f"The model's file {entry.name!r} is damaged.", code="bundle.hash")


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OSError(f"expected at most {limit_bytes} bytes")
    return content
