"""An archive's chunks: a stream of bytes sealed so that nothing of it can be changed, moved, cut off or added.

STREAM (Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance,
CRYPTO 2015, section 7) over ChaCha20-Poly1305 (RFC 8439; quick on boards without AES instructions): the nonce is the
chunk's number in 11 bytes and 1 byte that is 1 for the last chunk alone; the part's header is the associated data.
Every chunk holds 1 MiB; the last one is filled with zeros. So a length that is no whole number of chunks, or a last
chunk that does not open as the last one, tells an archive that was cut from one that was damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from edge.care.archive import HEADER_BYTES, Header, parse_header, sealing_key
from edge.errors import BackupError

CHUNK_BYTES: Final = 2**20
TAG_BYTES: Final = 16
SEALED_BYTES: Final = CHUNK_BYTES + TAG_BYTES
# A file on FAT32 holds at most 4 GiB - 1 bytes.
CHUNKS_PER_PART: Final = (4 * 2**30 - 1 - HEADER_BYTES) // SEALED_BYTES

OpenPart = Callable[[int], Callable[[bytes], object]]  # part number -> what writes to it


class Part(Protocol):
    """A part open for reading."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""


class Sealer:
    """Takes bytes and writes sealed parts. Holds one chunk in memory."""

    def __init__(self, header: Header, key: bytes, open_part: OpenPart, chunks_per_part: int = CHUNKS_PER_PART) -> None:
        self._header = header
        self._cipher = ChaCha20Poly1305(key)
        self._open_part = open_part
        self._chunks_per_part = chunks_per_part
        self._chunk = bytearray()
        self._count = 0
        self._write: Callable[[bytes], object] = lambda _: None
        self.size = 0  # bytes taken in

    def write(self, content: bytes) -> None:
        """Append. Raises what the part's writing raises."""
        self.size += len(content)
        view = memoryview(content)
        while view:
            if len(self._chunk) == CHUNK_BYTES:
                self._seal(last=False)
            taken = view[: CHUNK_BYTES - len(self._chunk)]
            self._chunk += taken
            view = view[len(taken) :]

    def close(self) -> None:
        """Write the last chunk."""
        self._chunk += bytes(CHUNK_BYTES - len(self._chunk))
        self._seal(last=True)

    def _seal(self, *, last: bool) -> None:
        part, within = divmod(self._count, self._chunks_per_part)
        header = self._header.of_part(part).pack()
        if within == 0:
            self._write = self._open_part(part)
            self._write(header)
        self._write(self._cipher.encrypt(_nonce(self._count, last=last), bytes(self._chunk), header))
        self._count += 1
        self._chunk.clear()


class Unsealer:
    """Gives back the bytes of an archive. Whatever `read` returned was written by someone who knew the passphrase.

    next_part: part number -> the part open for reading, None where there is none.
    Raises BackupError: backup.not-a-backup, .newer, .wrong-passphrase, .cut, .damaged.
    """

    def __init__(self, next_part: Callable[[int], Part | None], passphrase: bytes) -> None:
        self._next_part = next_part
        first = next_part(0)
        if first is None:
            raise BackupError("expected a backup, got no file", code="backup.not-a-backup")
        self._part = first
        self._header = parse_header(first.read(HEADER_BYTES))
        if self._header.part != 0:
            found = f"expected the first part of the backup, got part {self._header.part + 1}"
            raise BackupError(found, code="backup.damaged")
        self._cipher = ChaCha20Poly1305(sealing_key(passphrase, self._header))
        self._chunk = memoryview(b"")
        self._count = 0
        self._ended = False

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises BackupError, also for a read beyond the last chunk."""
        pieces = []
        while size > 0:
            if not self._chunk:
                self._unseal()
            piece = self._chunk[:size]
            pieces.append(piece)
            self._chunk = self._chunk[len(piece) :]
            size -= len(piece)
        return b"".join(pieces)

    def finish(self) -> None:
        """The content has ended: what is left must be the zeros of the last chunk, and nothing after it."""
        if not self._ended or any(self._chunk):
            raise BackupError("expected the backup to end after its last record, got more", code="backup.damaged")

    def _unseal(self) -> None:
        if self._ended:
            raise BackupError("expected the backup's last record, got its end", code="backup.damaged")
        sealed = self._next_sealed()
        content = self._open(sealed, last=False)
        if content is None:
            content = self._open(sealed, last=True)
            self._ended = content is not None
        if content is None:
            message = f"expected a whole backup, got one that is damaged at its {self._count + 1}. MiB"
            raise BackupError(message, code="backup.damaged")
        if self._ended and self._part.read(1):
            raise BackupError("expected the backup to end, got bytes after its end", code="backup.damaged")
        self._chunk = memoryview(content)
        self._count += 1

    def _open(self, sealed: bytes, *, last: bool) -> bytes | None:
        try:
            return self._cipher.decrypt(_nonce(self._count, last=last), sealed, self._header.pack())
        except InvalidTag:
            return None

    def _next_sealed(self) -> bytes:
        sealed = self._part.read(SEALED_BYTES)
        if not sealed and self._count > 0:
            self._turn_to_part(self._header.part + 1)
            sealed = self._part.read(SEALED_BYTES)
        if len(sealed) < SEALED_BYTES:
            message = f"expected a whole backup, got one that ends after {self._count} MiB"
            raise BackupError(message, code="backup.cut")
        return sealed

    def _turn_to_part(self, number: int) -> None:
        part = self._next_part(number)
        if part is None:
            message = f"expected a whole backup, got one that ends after {self._count} MiB: no part {number + 1}"
            raise BackupError(message, code="backup.cut")
        expected = self._header.of_part(number)
        if parse_header(part.read(HEADER_BYTES)) != expected:
            message = f"expected part {number + 1} of the same backup, got a part of another one"
            raise BackupError(message, code="backup.damaged")
        self._part, self._header = part, expected


def _nonce(count: int, *, last: bool) -> bytes:
    return count.to_bytes(11, "big") + bytes([last])
