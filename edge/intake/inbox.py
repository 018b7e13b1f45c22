"""The inbox: how the box's other services hand in objects, as files `inbox/<SOURCE>/<name>.dcm` of the data folder.

A writer puts a file there durably (`edge.durable.write_file`); from then on the object is the receiver's. `Inbox`
starts a process while something waits, because neither a file of 1 GiB nor one made to do harm may hold up the loop
that answers the network. That process files each object as if it had been sent (same bytes as over the network, so the
same object is a duplicate whichever way it came): file durable, row, and only then is it deleted from the inbox. Killed
anywhere between, the next one does it again, and the row is a duplicate.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.durable import remove
from edge.errors import DicomError, StorageError
from edge.intake.association import Settings
from edge.intake.children import fork
from edge.intake.filing import Arrival, Filing
from edge.intake.header import read_header
from edge.intake.inbox_folder import INBOX, SUFFIX
from edge.intake.ledger_link import LedgerGoneError, LedgerLink
from edge.intake.part10 import file_head, read_head
from edge.intake.server import Server
from edge.intake.spool import SpoolFile
from edge.intake.status import FAULTS, REFUSALS, SUCCESS, Answer
from edge.store import INCOMING

_SOURCE: Final = re.compile(r"[A-Z0-9][A-Z0-9_-]{0,15}")  # what is shown as the calling AE title
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # before what could not be taken is tried again
_STOP_S: Final = 2.0
_CHUNK_BYTES: Final = 2**20
_LOG = logging.getLogger("radbox.receive")


class Inbox:
    """The receiver's side: one process at a time, for as long as there is something to take."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings
        self._server = server
        self._process_id = 0
        self._left: frozenset[Path] = frozenset()  # what the last process could not take
        self._again_s = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._deaths = 0  # of processes one after the other

    def step(self) -> None:
        """One round of the service's loop: notice the end of a process, start the next. Costs a look at two folders."""
        if self._process_id and not self._has_ended():
            return
        names = frozenset(waiting(self._settings.data_dir))
        if not names or (names <= self._left and time.monotonic() < self._again_s):
            return
        self._start()

    def close(self) -> None:
        """End the process: politely, since it notices that the ledger is gone, then by force."""
        deadline_s = time.monotonic() + _STOP_S
        while self._process_id and not self._has_ended():
            if time.monotonic() > deadline_s:
                os.kill(self._process_id, signal.SIGKILL)
            time.sleep(0.01)

    def _start(self) -> None:
        number, link = self._server.adopt()
        with link:
            try:
                self._process_id = fork(link, lambda link: empty(self._settings, LedgerLink(link), self._deaths))
            except OSError as error:  # the link's other end closes with this one
                _LOG.error("the inbox waits, no process to be had: %s", error.strerror)
                return
        _LOG.info("taking what lies in the inbox, as association %d", number)

    def _has_ended(self) -> bool:
        process_id, status = os.waitpid(self._process_id, os.WNOHANG)
        if process_id == 0:
            return False
        self._process_id = 0
        self._deaths = self._deaths + 1 if status else 0
        if status:
            _LOG.error("the process that empties the inbox ended with %d", os.waitstatus_to_exitcode(status))
        left = frozenset(waiting(self._settings.data_dir))
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s) if left and left == self._left else _FIRST_PAUSE_S
        self._again_s = time.monotonic() + self._pause_s
        self._left = left
        return True


def waiting(data_dir: Path) -> list[Path]:
    """Files to take, by source and name. Temporary names and anything that is no plain file are passed over."""
    found: list[Path] = []
    for source in _scan(data_dir / INBOX):
        if source.is_dir(follow_symlinks=False) and _SOURCE.fullmatch(source.name):
            found += [
                Path(entry.path)
                for entry in _scan(Path(source.path))
                if entry.name.endswith(SUFFIX) and entry.name[0] != "." and entry.is_file(follow_symlinks=False)
            ]
    return sorted(found)


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries


# --- in the process that empties it ---


def empty(settings: Settings, ledger: LedgerLink, deaths: int = 0) -> None:
    """Take everything, what comes meanwhile included, each file once. The link's end is the association's end.

    deaths: how many processes before this one did not live to the end of it.
    """
    take = _Take(settings, Filing(settings.data_dir, ledger))
    tried: set[Path] = set()
    with contextlib.suppress(LedgerGoneError):  # the receiver is ending
        while names := [path for path in waiting(settings.data_dir) if path not in tried]:
            # Should one of them kill this process each time, the others still get their turn.
            first = 0 if tried else deaths % len(names)
            for path in names[first:] + names[:first]:
                tried.add(path)
                if not take.file(path):
                    return


class _Take:
    """From the inbox to the spool, one file at a time."""

    def __init__(self, settings: Settings, filing: Filing) -> None:
        self._receive = settings.receive
        self._incoming = settings.data_dir / INCOMING
        self._filing = filing

    def file(self, path: Path) -> bool:
        """Take one file; False if there is no room for any. Raises LedgerGoneError."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                answer = self._answer(handle, path.parent.name)
            finally:
                os.close(handle)
            if answer.status == SUCCESS or answer in FAULTS.values() or answer == REFUSALS["intake.too-large"]:
                remove(path)
        except OSError as error:
            _LOG.error("a file of the inbox could not be read and waits: %s", os.strerror(error.errno or 0))
            return True
        except StorageError as error:
            _LOG.error("a file of the inbox could not be deleted and waits: %s", error.message)
            return True
        return answer != REFUSALS["storage.full"]

    def _answer(self, handle: int, source: str) -> Answer:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError
        if found.st_size > self._receive.max_object_bytes:
            return self._filing.refuse("intake.too-large")
        if found.st_size == 0:
            return self._set_aside(b"", source, DicomError("expected an object, got no bytes", code="dicom.empty"))
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as view:
            try:
                arrival, start = _arrival(view, source)
            except DicomError as error:
                return self._set_aside(view, source, error)
            head = file_head(arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid)
            spool = self._spool(head, view, start)
            try:
                return self._filing.file(spool, arrival)
            finally:
                spool.discard()

    def _set_aside(self, content: bytes | mmap.mmap, source: str, reason: DicomError) -> Answer:
        spool = self._spool(b"", content, 0)
        try:
            return self._filing.set_aside(spool, source, reason)
        finally:
            spool.discard()

    def _spool(self, head: bytes, content: bytes | mmap.mmap, start: int) -> SpoolFile:
        spool = SpoolFile(self._incoming, self._receive.max_object_bytes, self._receive.min_free_bytes)
        spool.write(head)
        for at in range(start, len(content), _CHUNK_BYTES):
            spool.write(content[at : at + _CHUNK_BYTES])
        return spool


def _arrival(view: mmap.mmap, source: str) -> tuple[Arrival, int]:
    """What a sender would have said of the object, and where its data set begins. Raises DicomError."""
    transfer_syntax, start = read_head(view)
    header = read_header(view, start, transfer_syntax)
    return Arrival(header.sop_class_uid, header.sop_instance_uid, transfer_syntax, source), start
