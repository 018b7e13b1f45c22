"""A mounted stick, opened as what it is: a folder written by somebody else, on a device that may vanish or lie.

Every step is an `openat` with O_NOFOLLOW from the folder above, so no symbolic link and no name out of the stick's
own tree is ever followed. Everything is counted and sized before it is read. What was read once is not read again:
metadata are handed on as the bytes that were verified, files are hashed while they are copied.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

from edge.errors import UpdateError
from edge.trust import LARGEST_FILE_BYTES, LARGEST_METADATA_BYTES, MOST_FILES, MOST_ROOTS, FileEntry, Offer

TOP: Final = "EDGE-UPDATE"
OUTBOX: Final = "outbox"  # written, never read
MOST_ENTRIES: Final = 2000  # files and folders under TOP, the outbox left out
MOST_BUNDLES: Final = 32
DEEPEST: Final = 4  # TOP/bundles/<bundle>/files/<name>
CHUNK_BYTES: Final = 1 << 20
_NOTHING = "update.no-update"  # the index is written last: a stick pulled out too early has none
_ROOT_NAME = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not make us wait


@contextmanager
def open_stick(folder: Path) -> Iterator[Stick]:
    """The stick mounted at `folder`, looked over once: counts, depth, no links, plain files only.

    Raises UpdateError: update.no-update, update.symlink, update.path, update.too-many-files, update.too-deep,
    update.stick-removed.
    """
    with open_below(folder, TOP) as top:
        _look_over(top)
        yield Stick(top)


@contextmanager
def open_below(folder: Path, *names: str) -> Iterator[int]:
    """A descriptor of a folder on the stick, opened name by name without following a link.

    Raises UpdateError: update.no-update (the first name is missing), update.truncated, update.symlink, update.path,
    update.stick-removed.
    """
    with _reading("the stick"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            absent = _NOTHING if name == names[0] else "update.truncated"
            inner = _open(handle, name, _FOLDER, f"a folder {name}", absent)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


class Stick:
    """What lies under EDGE-UPDATE. Made by `open_stick`; every method may raise update.stick-removed."""

    def __init__(self, top: int) -> None:
        self._top = top

    def roots(self) -> tuple[bytes, ...]:
        """Every root, in the order of their numbers; unverified. Raises UpdateError: update.too-many-files, as
        `snapshot`."""
        if "root" not in _names(self._top):
            return ()
        with self._folder("root") as folder:
            found = [match for name in _names(folder) if (match := _ROOT_NAME.fullmatch(name))]
            if len(found) > MOST_ROOTS:
                raise too_many(f"expected at most {MOST_ROOTS} roots on the stick, got {len(found)}")
            return tuple(_metadata(folder, match[0]) for match in sorted(found, key=lambda match: int(match[1])))

    def snapshot(self) -> bytes:
        """snapshot.json, unverified. Raises UpdateError: update.no-update, update.too-large, update.symlink."""
        return _metadata(self._top, "snapshot.json")

    def bundles(self) -> tuple[str, ...]:
        """Names of the folders of bundles. They mean nothing: what a bundle is, its signed metadata say.

        Raises UpdateError: update.no-update, update.too-many-files.
        """
        with self._folder("bundles") as folder:
            names = tuple(sorted(name for name in _names(folder) if not name.startswith(".")))
        if not names:
            raise UpdateError("expected a bundle on the stick, got none", code=_NOTHING)
        if len(names) > MOST_BUNDLES:
            raise too_many(f"expected at most {MOST_BUNDLES} bundles on the stick, got {len(names)}")
        return names

    def targets(self, bundle: str) -> bytes:
        """targets.json of a bundle, unverified. Raises UpdateError as `snapshot`."""
        with self._folder("bundles", bundle) as folder:
            return _metadata(folder, "targets.json")

    def check_files(self, bundle: str, offer: Offer) -> None:
        """Pass if files/ holds exactly the files that `offer` lists, each of its size.

        Raises UpdateError: update.too-many-files, update.extra-file, update.truncated, update.file-changed,
        update.too-large, update.symlink, update.path.
        """
        with self._folder("bundles", bundle, "files") as folder:
            present = set(_names(folder))
            if len(present) > MOST_FILES:
                raise too_many(f"expected at most {MOST_FILES} files in the bundle, got {len(present)}")
            listed = {entry.name for entry in offer.files}
            if present - listed:
                message = f"expected only the {len(listed)} signed files, got {len(present - listed)} more beside them"
                raise UpdateError(message, code="update.extra-file")
            for entry in offer.files:
                os.close(_open_entry(folder, entry))

    def chunks(self, bundle: str, entry: FileEntry) -> Iterator[bytes]:
        """The bytes of a listed file, `entry.size` of them. Whether they are the right ones, the caller's hash says.

        Raises UpdateError as `check_files`.
        """
        with self._folder("bundles", bundle, "files") as folder:
            handle = _open_entry(folder, entry)
            try:
                yield from _exactly(handle, entry.size)
            finally:
                os.close(handle)

    def check_hashes(self, bundle: str, offer: Offer) -> None:
        """Pass if every listed file has the signed sha256. Raises UpdateError: update.file-changed, as `chunks`."""
        for entry in offer.files:
            digest = hashlib.sha256()
            for chunk in self.chunks(bundle, entry):
                digest.update(chunk)
            if digest.hexdigest() != entry.sha256:
                raise changed(entry)

    @contextmanager
    def _folder(self, *names: str) -> Iterator[int]:
        handle = os.dup(self._top)
        try:
            for name in names:
                known = name in ("root", "bundles", "files")
                absent = _NOTHING if name == "bundles" else "update.truncated"
                inner = _open(handle, name, _FOLDER, f"a folder {name}" if known else "a bundle", absent)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)


def too_many(message: str) -> UpdateError:
    """The error of a count over its cap."""
    return UpdateError(message, code="update.too-many-files")


def changed(entry: FileEntry) -> UpdateError:
    """The error of a file with other bytes than were signed."""
    message = f"expected {entry.name} as it was signed, got other bytes of the same size"
    return UpdateError(message, code="update.file-changed")


def removed(cause: OSError | None = None) -> UpdateError:
    """The error of a stick that stopped answering."""
    why = os.strerror(cause.errno) if cause and cause.errno else "fewer bytes than it holds"
    return UpdateError(f"expected to read the stick to the end, got: {why}", code="update.stick-removed")


@contextmanager
def _reading(what: str, absent: str = "update.truncated") -> Iterator[None]:
    """Translate OSError: a link -> update.symlink, absent -> `absent`, anything else -> the stick is gone."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise UpdateError(f"expected {what} itself, got a symbolic link", code="update.symlink") from error
        if error.errno == errno.ENOENT:
            raise UpdateError(f"expected {what} on the stick, got none", code=absent) from error
        if error.errno == errno.ENOTDIR:
            raise UpdateError(f"expected {what} to be a folder, got something else", code="update.path") from error
        raise removed(error) from error


def _open(folder: int, name: str, flags: int, what: str, absent: str = "update.truncated") -> int:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise UpdateError("expected a plain file name, got a path", code="update.path")
    if flags & os.O_DIRECTORY:
        with _reading(what, absent):  # O_DIRECTORY on a link says "not a folder": ask what it is
            if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise OSError(errno.ELOOP, "")
    with _reading(what, absent):
        return os.open(name, flags, dir_fd=folder)


def _names(folder: int) -> list[str]:
    with _reading("a folder"), os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, MOST_ENTRIES + 1)]
    _check_count(len(names))
    return names


def _check_count(count: int) -> None:
    if count > MOST_ENTRIES:
        raise too_many(f"expected at most {MOST_ENTRIES} files on the stick, got more")


def _look_over(folder: int, depth: int = 1, seen: int = 0) -> int:
    """Walk the tree and stop at the first thing that has no place in an update; returns how many entries were seen.

    seen: before this folder. At most DEEPEST folders are open at a time.
    """
    inner = []
    with _reading("a folder"), os.scandir(folder) as entries:
        for entry in entries:
            seen += 1
            _check_count(seen)
            if _is_folder(entry, depth):
                inner.append(entry.name)
    for name in inner:
        handle = _open(folder, name, _FOLDER, "a folder")
        try:
            seen = _look_over(handle, depth + 1, seen)
        finally:
            os.close(handle)
    return seen


def _is_folder(entry: os.DirEntry[str], depth: int) -> bool:
    """True for a folder to look into. Raises UpdateError for what is neither that nor a plain file."""
    if entry.is_symlink():
        raise UpdateError("expected files and folders, got a symbolic link", code="update.symlink")
    if entry.is_file(follow_symlinks=False):
        return False
    if not entry.is_dir(follow_symlinks=False):
        raise UpdateError("expected plain files and folders, got a device or a pipe", code="update.path")
    if depth >= DEEPEST:
        raise UpdateError(f"expected at most {DEEPEST} folders in each other, got more", code="update.too-deep")
    return depth > 1 or entry.name.casefold() != OUTBOX


def _size(handle: int, what: str) -> int:
    with _reading(what):
        facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        raise UpdateError(f"expected {what} to be a plain file, got something else", code="update.path")
    return facts.st_size


def _metadata(folder: int, name: str) -> bytes:
    handle = _open(folder, name, _FILE, name, absent=_NOTHING)
    try:
        size = _size(handle, name)
        if size > LARGEST_METADATA_BYTES:
            message = f"expected {name} to have at most {LARGEST_METADATA_BYTES} bytes, got {size}"
            raise UpdateError(message, code="update.too-large")
        return b"".join(_exactly(handle, size))
    finally:
        os.close(handle)


def _open_entry(folder: int, entry: FileEntry) -> int:
    """Open a listed file whose kind and size are right. The name is shown: it is signed."""
    handle = _open(folder, entry.name, _FILE, entry.name)
    try:
        size = _size(handle, entry.name)
        if size < entry.size:
            message = f"expected {entry.name} to have {entry.size} bytes, got only {size}"
            raise UpdateError(message, code="update.truncated")
        if size > max(entry.size, LARGEST_FILE_BYTES):
            message = f"expected {entry.name} to have {entry.size} bytes, got {size}"
            raise UpdateError(message, code="update.too-large")
        if size > entry.size:
            message = f"expected {entry.name} as it was signed, {entry.size} bytes, got {size}"
            raise UpdateError(message, code="update.file-changed")
    except UpdateError:
        os.close(handle)
        raise
    return handle


def _exactly(handle: int, size: int) -> Iterator[bytes]:
    left = size
    while left:
        with _reading("a file"):
            chunk = os.read(handle, min(left, CHUNK_BYTES))
        if not chunk:
            raise removed()
        left -= len(chunk)
        yield chunk
