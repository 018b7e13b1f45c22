"""What may go, goes: without losing anything, whenever power or process ends.

Rows first: a study's rows are deleted and its files noted for removal in one transaction. Then each file, while its
folder is locked: an object that arrives again in between gets its row under the same lock, and its note is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.board import Storage
from edge.durable import locked, remove
from edge.durable_names import remove_tree
from edge.store import Store
from edge.store_paths import OBJECTS, QUARANTINE, RENDERED

DAY_S: Final = 86_400.0
_OURS: Final = (OBJECTS.parts, QUARANTINE.parts, RENDERED.parts)


@dataclass(frozen=True)
class Cleaned:
    """What went."""

    studies: int = 0
    size_bytes: int = 0  # of the studies' objects
    renderings: int = 0
    quarantined: int = 0

    @property
    def anything(self) -> bool:
        """True if something went."""
        return bool(self.studies or self.renderings or self.quarantined)

    def in_words(self) -> str:
        """One sentence for people."""
        return (
            f"Made room. Removed: studies that another machine keeps: {self.studies} ({self.size_bytes / 1e6:.0f} MB); "
            f"pictures of replaced drafts: {self.renderings}; quarantined objects: {self.quarantined}."
        )


def finish_removals(data_dir: Path, store: Store) -> int:
    """Delete the files whose last row is gone; returns how many notes were dealt with. Raises StorageError."""
    noted = store.removals()
    for path in noted:
        _remove(data_dir, store, path)
    return len(noted)


def _remove(data_dir: Path, store: Store, path: str) -> None:
    target, parts = data_dir / path, Path(path).parts
    if ".." not in parts and any(parts[: len(ours)] == ours for ours in _OURS) and target.parent.is_dir():
        if parts[:1] == RENDERED.parts:  # the name of a reading's folder is never used again
            remove_tree(target)
            if not any(target.parent.iterdir()):
                remove_tree(target.parent)
        else:
            with locked(target.parent):
                if store.may_remove(path):
                    remove(target)
    store.removed(path)


def trim_quarantine(data_dir: Path, store: Store, keep_bytes: int) -> int:
    """Delete the oldest refused bytes beyond `keep_bytes`; returns how many rows went."""
    if store.quarantine_bytes() <= keep_bytes:
        return 0
    dropped = store.drop_quarantine(keep_bytes)
    finish_removals(data_dir, store)
    return dropped


def clean(
    data_dir: Path, store: Store, storage: Storage, enough: Callable[[], bool], alive: Callable[[], None]
) -> Cleaned:
    """Remove pictures of replaced drafts, then exported and expired studies one by one until there is `enough` room.

    alive: called after each study. Never touches work that is unread, unsigned or not exported.
    """
    renderings = store.drop_superseded_renderings()
    quarantined = trim_quarantine(data_dir, store, storage.quarantine_bytes)
    finish_removals(data_dir, store)
    studies = size_bytes = 0
    for study in store.removable(storage.retention_days * DAY_S, storage.keep_studies):
        if enough():
            break
        if store.forget_study(study.study_key):
            studies += 1
            size_bytes += study.size_bytes
        finish_removals(data_dir, store)
        alive()
    return Cleaned(studies, size_bytes, renderings, quarantined)
