"""What of a box goes into a backup, and in which order: model, files, and the database that names them last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.care.archive_records import DATABASE_NAME, LARGEST_PIECE_BYTES, STATE_NAME, End, RecordWriter, is_name
from edge.errors import BackupError, BundleError, StorageFullError
from edge.slots import LARGEST_STATE_BYTES, ROOTS, SLOTS, STATE, in_use, parse_state
from edge.store_backup import Named, Snapshot, take_snapshot

WORKSPACE: Final = Path(".backup")  # copies of the database while a backup runs
SNAPSHOTS_LIMIT: Final = 8


@dataclass(frozen=True)
class _Wanted:
    """A file, relative to the data folder; `sha256` "" where nothing says what it must be."""

    name: str
    sha256: str = ""


class Source:
    """What of a box goes into the archive.

    Files may go while they are read: retention forgets studies, an update retires a model. A file that vanished makes
    a newer copy of the database, and what that one names beyond the older one is added; the last copy goes in.
    """

    def __init__(self, data_dir: Path, key: bytes | None) -> None:
        """Copy the database into WORKSPACE. key: the box's own. Raises StoreError, StorageError, BackupError."""
        self._data_dir = data_dir
        self._key = key
        self._snapshots = [self._take(0)]

    def close(self) -> None:
        """Close the copies."""
        for snapshot in self._snapshots:
            snapshot.close()

    def size_bytes(self) -> int:
        """About how many bytes will be read."""
        snapshot = self._snapshots[0]
        pictures = sum(
            path.stat().st_size for named in snapshot.names() if named.folder for path in self._in_folder(named.path)
        )
        model = sum(path.stat().st_size for path in self._data_dir.joinpath(SLOTS).glob("*/*"))
        return snapshot.size_bytes() + snapshot.path.stat().st_size + pictures + model

    def write(self, records: RecordWriter) -> End:
        """Add all of it. Raises BackupError (backup.busy, .no-room), StoreError and what the writing raises."""
        self._write_model(records)
        vanished: list[_Wanted] = []
        for number in range(1, SNAPSHOTS_LIMIT + 1):
            snapshot, *earlier = reversed(self._snapshots)
            for one in vanished:
                if snapshot.still_names(one.name) and not self._write_file(records, one):
                    records.broken(one.name)  # named still, and not there: lost before this backup
            wanted = self._files(snapshot.names(earlier[0] if earlier else None))
            vanished = [one for one in wanted if not self._write_file(records, one)]
            if not vanished:
                self._write_database(records, snapshot)
                return records.end(number)
            self._snapshots.append(self._take(number))
        raise _changing()

    def _take(self, number: int) -> Snapshot:
        try:
            return take_snapshot(self._data_dir, self._key, self._data_dir / WORKSPACE / f"{number}.sqlite3")
        except StorageFullError as error:
            message = "expected room on the box for a copy of its database, got a full disk"
            raise BackupError(message, code="backup.no-room") from error

    def _files(self, named: Iterator[Named]) -> Iterator[_Wanted]:
        for one in named:
            if not one.folder:
                yield _Wanted(one.path, one.sha256)
                continue
            files = self._in_folder(one.path)
            yield from (_Wanted(str(path.relative_to(self._data_dir))) for path in files)
            if not files:
                yield _Wanted(f"{one.path}/image.png")

    def _in_folder(self, path: str) -> list[Path]:
        folder = self._data_dir / path
        return sorted(file for file in folder.iterdir() if is_name(f"{path}/{file.name}")) if folder.is_dir() else []

    def _write_file(self, records: RecordWriter, wanted: _Wanted) -> bool:
        """Add the file; False where there is none. One that breaks off, or is not what it was, is noted as broken."""
        if not is_name(wanted.name):
            raise BackupError("expected the database to name files of this box, got other names", code="backup.failed")
        try:
            handle = os.open(self._data_dir / wanted.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:
            records.broken(wanted.name)
            return True
        with suppress(OSError), os.fdopen(handle, "rb", buffering=0) as stream:  # noted by the writer as broken
            sha256 = records.file(wanted.name, iter(lambda: stream.read(LARGEST_PIECE_BYTES), b""))
            if wanted.sha256 not in ("", sha256):  # its bytes come along: they may still be worth something
                records.broken(wanted.name)
        return True

    def _write_model(self, records: RecordWriter) -> None:
        """The models in use, then the state that names them: the last state that is written counts."""
        done: set[str] = set()
        for _ in range(SNAPSHOTS_LIMIT):
            try:
                content = (self._data_dir / STATE).read_bytes()[: LARGEST_STATE_BYTES + 1]
                slots = in_use(parse_state(content))
            except (OSError, BundleError):
                return  # the factory's model; or damage, which the box itself answers with the factory's model
            files = [path for slot in sorted(slots) for path in sorted((self._data_dir / SLOTS / slot).glob("*"))]
            files += sorted((self._data_dir / ROOTS).glob("*.root.json"))
            names = [str(path.relative_to(self._data_dir)) for path in files]
            wanted = [name for name in names if is_name(name) and name not in done]
            gone = [name for name in wanted if not self._write_file(records, _Wanted(name))]
            done.update(wanted)
            if not gone and content == (self._data_dir / STATE).read_bytes():
                records.file(STATE_NAME, [content])
                return
        raise _changing()

    def _write_database(self, records: RecordWriter, snapshot: Snapshot) -> None:
        snapshot.close()
        with snapshot.path.open("rb", buffering=0) as stream:
            records.file(DATABASE_NAME, iter(lambda: stream.read(LARGEST_PIECE_BYTES), b""), snapshot.key.hex())


def _changing() -> BackupError:
    return BackupError("expected the box's files to stay for a moment, got changes", code="backup.busy")
