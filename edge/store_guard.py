"""Who may use the database now: all services at once, or one repair alone.

Two locks (flock, so they end with their process). A connection holds the data folder itself, shared, for as long as it
is open: a repair by hand refuses to start then. Around each single use it holds `radbox.lock`, shared: service `care`
takes that one alone to replace a damaged database while the other services run, however idle their connections are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edge.durable import Lock, make_directory, remove, write_file
from edge.errors import StoreError
from edge.store_paths import DAMAGED, LOCK, RESTORING

USES_END_WITHIN_S = 60.0  # no use of the database takes longer


class Guard:
    """A connection's two shared locks. Not for use by two threads at once."""

    def __init__(self, folder: Path) -> None:
        """Join those that use the database of data folder `folder`. Raises StoreError (store.in-repair)."""
        self._folder = folder
        self._depth = 0
        self._life = Lock(folder)
        if not self._life.acquire(shared=True, wait_s=0):
            self._life.close()
            raise _in_repair()
        self._use = Lock(folder / LOCK, create=True)

    def check_whole(self) -> None:
        """Raise StoreError: store.damaged (to be repaired), store.restore-unfinished (a backup is half placed)."""
        if (self._folder / RESTORING).exists():
            message = "expected a box in one piece, got a restore that was cut off; service care finishes it"
            raise StoreError(message, code="store.restore-unfinished")
        if (self._folder / DAMAGED).exists():
            message = "expected a whole database, got a damaged one; service care or `radbox fsck --repair` rebuilds it"
            raise StoreError(message, code="store.damaged")

    def mark_damaged(self) -> None:
        """Ask for a repair. Raises StorageError."""
        mark_damaged(self._folder)

    @contextlib.contextmanager
    def using(self) -> Iterator[bool]:
        """Around each use; True for the outermost one. Raises StoreError (store.in-repair)."""
        outermost = self._depth == 0
        if outermost and not self._use.acquire(shared=True, wait_s=0):
            raise _in_repair()
        self._depth += 1
        try:
            yield outermost
        finally:
            self._depth -= 1
            if outermost:
                self._use.release()

    def close(self) -> None:
        """Leave."""
        self._use.close()
        self._life.close()


class Alone(Guard):
    """For whoever holds the locks of `alone` already."""

    def __init__(self) -> None:
        self._depth = 0

    def check_whole(self) -> None:
        """A repair opens what is damaged."""

    def mark_damaged(self) -> None:
        """It is known."""

    @contextlib.contextmanager
    def using(self) -> Iterator[bool]:
        """Nobody else is there."""
        yield True

    def close(self) -> None:
        """The locks are `alone`'s."""


@contextlib.contextmanager
def alone(folder: Path, *, beside_services: bool = False) -> Iterator[None]:
    """Keep everybody else from the database of data folder `folder`.

    beside_services: services may run; their uses fail with `store.in-repair` meanwhile. Otherwise raises StoreError
    (store.in-use) if a service runs. Raises StoreError (store.in-use) too if a use does not end.
    """
    make_directory(folder)
    with contextlib.ExitStack() as stack:
        if not beside_services:
            life = Lock(folder)
            stack.callback(life.close)
            if not life.acquire(wait_s=0):
                message = "expected no service to run while the data folder is repaired, got at least one; stop them"
                raise StoreError(message, code="store.in-use")
        use = Lock(folder / LOCK, create=True)
        stack.callback(use.close)
        if not use.acquire(wait_s=USES_END_WITHIN_S):
            within = f"{USES_END_WITHIN_S:.0f} s"
            message = f"expected every use of the database to end within {within}, got one that did not"
            raise StoreError(message, code="store.in-use")
        yield


def services_run(folder: Path) -> bool:
    """True if someone has the database of `folder` open."""
    life = Lock(folder)
    try:
        return not life.acquire(wait_s=0)
    finally:
        life.close()


def mark_damaged(folder: Path) -> None:
    """From now on the database is only opened to be repaired. Raises StorageError."""
    if not (folder / DAMAGED).exists():
        write_file(folder / DAMAGED, b"")


def mark_whole(folder: Path) -> None:
    """The database may be opened again. Raises StorageError."""
    remove(folder / DAMAGED)


def _in_repair() -> StoreError:
    return StoreError("expected the database, got its repair, which goes on; try again soon", code="store.in-repair")
