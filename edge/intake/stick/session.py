"""Images from a mounted stick into the inbox, as the owner of the data folder; started by `edge.care.update.mount`.

    python -m edge.intake.stick.session BOARD FOLDER
    python -m edge.intake.stick.session BOARD --failed

The database key, if there is one, comes on standard input. One line of JSON goes out: the fact "stick" as the store has
it. The stick is mounted read-only and nothing is ever written to it. `--failed` tells that such a session died.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from edge.board import Board, load_board
from edge.disk_marks import DiskWatch
from edge.durable import Lock, free_bytes, make_directory
from edge.errors import DicomError, RadboxError, StorageError, StorageFullError
from edge.intake import dicomdir
from edge.intake.negotiation import quiet_libraries
from edge.intake.stick.take import INBOX, Taking
from edge.intake.stick.tree import Limits, Names, Tree, open_tree, read_rest
from edge.intake.stick.words import Tally
from edge.service import setup_logging
from edge.store import Store, open_store

TIME_LIMIT_S: Final = 45 * 60.0
TELL_EVERY_S: Final = 2.0
UNREADABLE_IN_A_ROW: Final = 3  # so many files that do not answer: the stick is gone
COPIES: Final = 2  # of each image, until the receiver has taken it from the inbox
_LOG = logging.getLogger("radbox.stick")


class _StopError(RadboxError):
    """The import ends here; its code is the reason."""


class Import:
    """One import. Times are monotonic seconds."""

    def __init__(self, board: Board, store: Store, watch: DiskWatch | None = None) -> None:
        self._board = board
        self._store = store
        self._watch = watch or DiskWatch(board)
        self._limits = Limits(board.stick.most_files, time.monotonic() + TIME_LIMIT_S)
        self._told_s = float("-inf")
        self._unreadable = 0
        self.tally = Tally()

    def run(self, folder: Path) -> Tally:
        """Import from the stick at `folder`. Raises nothing that a stick or a full disk could cause."""
        try:
            make_directory(self._board.data_dir / INBOX)
            with closing(Lock(self._board.data_dir / INBOX)) as lock:
                if not lock.acquire(wait_s=0):
                    raise _StopError("expected to be the only import, got another at work", code="stick.busy")
                with open_tree(folder) as tree:
                    self._run(tree)
        except OSError:
            self.tally.stopped = "stick.removed"
        except StorageFullError:
            self.tally.stopped = "stick.disk-full"
        except RadboxError as error:
            _LOG.error("%s: %s", error.code, error.message)
            self.tally.stopped = error.code if isinstance(error, _StopError) else "stick.failed"
        return self.tally

    def _run(self, tree: Tree) -> None:
        found = tree.files(self._limits)
        self.tally.not_all = found.code
        ordered, has_directory = self._in_order(tree, found.files)
        limit = min(self._board.stick.largest_bytes, self._board.receive.max_object_bytes)
        taking = Taking(self._board.data_dir, self._store, limit, pictures=not has_directory)
        for names in ordered:
            if self._limits.over():
                raise _StopError("expected the import to end in time, got a slow stick", code="stick.too-long")
            self._take(taking, tree, names)
            self._progress()

    def _take(self, taking: Taking, tree: Tree, names: Names) -> None:
        try:
            outcome = taking.take(tree, names, self._room)
        except DicomError as error:
            self.tally.found += 1
            self.tally.refuse(error.code)
        except StorageError:
            raise
        except OSError:
            self.tally.found += 1
            self.tally.refuse("stick.unreadable")
            self._unreadable += 1
            if self._unreadable >= UNREADABLE_IN_A_ROW:
                raise
            return
        else:
            self.tally.found += outcome != "other"
            self.tally.taken += outcome == "taken"
            self.tally.known += outcome == "known"
            self.tally.other += outcome == "other"
        self._unreadable = 0

    def _room(self, size_bytes: int) -> None:
        """Images from a stick can wait: they leave room for what machines send. Raises _StopError, StorageError."""
        left = free_bytes(self._board.data_dir) - COPIES * size_bytes
        if left < self._board.receive.min_free_bytes or self._watch.reached() in ("warn", "refuse"):
            raise _StopError("expected room for another image, got a disk that is nearly full", code="stick.disk-full")

    def _in_order(self, tree: Tree, files: list[Names]) -> tuple[list[Names], bool]:
        """Files that a DICOMDIR names come first, in its order; and whether there is one.

        A DICOMDIR only orders what was found on the stick: whatever else it names is counted as missing.
        """
        known = {_folded(names): names for names in files}
        ordered: dict[Names, None] = {}
        directories = [names for names in files if _folded(names)[-1] == dicomdir.NAME.casefold()]
        for directory in directories:
            for file_id in self._file_ids(tree, directory):
                if (names := known.get(_folded((*directory[:-1], *file_id)))) is None:
                    self.tally.found += 1
                    self.tally.refuse("stick.missing")
                else:
                    ordered[names] = None
        ordered.update(dict.fromkeys(files))
        for directory in directories:
            del ordered[directory]
        self.tally.other += len(directories)
        return list(ordered), bool(directories)

    def _file_ids(self, tree: Tree, directory: Names) -> list[dicomdir.FileId]:
        content = bytearray()
        try:
            with tree.open(directory) as handle:
                read_rest(handle, 0, _size(handle), content.extend)
            return dicomdir.file_ids(bytes(content))
        except DicomError as error:
            _LOG.warning("%s: %s; every file is looked at instead", error.code, error.message)
            self.tally.refuse(error.code)
            self.tally.found += 1
            return []

    def _progress(self) -> None:
        if time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._told_s = time.monotonic()
            self._store.set_fact("stick", self.tally.fact("working"))


def _size(handle: int) -> int:
    """Of a DICOMDIR. Raises DicomError (dicom.dicomdir)."""
    size = os.fstat(handle).st_size
    if size > dicomdir.LARGEST_BYTES:
        message = f"expected a DICOMDIR of at most {dicomdir.LARGEST_BYTES} bytes, got more"
        raise DicomError(message, code="dicom.dicomdir")
    return size


def _folded(names: Names) -> Names:
    """As FAT compares names; some writers of discs add the version of ISO 9660 (7.5.1)."""
    return tuple(name.removesuffix(";1").rstrip(".").casefold() for name in names)


def tell(store: Store, tally: Tally) -> dict[str, object]:
    """Keep how the import ended, and return it. Raises StoreError, StorageError."""
    fact = tally.fact("stopped" if tally.stopped else "done")
    store.set_fact("stick", fact)
    store.add_counts({"imports": tally.taken, "imports_known": tally.known, "imports_refused": tally.refused})
    if tally.found or tally.stopped:
        store.add_event(tally.code, str(fact["message"]))
    _LOG.info("%s: %d taken, %d known, %d refused", tally.code, tally.taken, tally.known, tally.refused)
    for code, count in sorted(tally.reasons.items()):
        _LOG.info("refused for %s: %d", code, count)
    return fact


def main(arguments: Sequence[str], key: bytes | None) -> int:
    """See the module docstring; 0 once the outcome was told, whatever it was."""
    board_file, folder = arguments
    setup_logging("stick")
    quiet_libraries()
    board = load_board(Path(board_file))
    make_directory(board.data_dir)
    with closing(open_store(board.data_dir, key=key)) as store:
        tally = Tally(stopped="stick.failed") if folder == "--failed" else Import(board, store).run(Path(folder))
        sys.stdout.write(json.dumps(tell(store, tally)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer.read() or None))
