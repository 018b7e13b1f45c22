"""A backup's first 64 bytes, and the key that a passphrase gives. Pure: bytes in, bytes out.

    magic 8 | format 2 | log2 N 1 | r 1 | p 1 | 0 | part 4 | salt 16 | key check 16 | checksum 14      (big-endian)

The passphrase goes through scrypt (RFC 7914) with the parameters that the header states, then HKDF-Expand (RFC 5869)
into two keys: one seals the chunks, one lets a wrong passphrase be told from a damaged archive. The checksum (start
of the SHA-256 of what stands before it) stays where it is in every later format, so that a newer archive is told from
a damaged one. The whole header is bound to every chunk of its part (`archive_stream`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from edge.errors import BackupError

MAGIC: Final = b"RADBOXBK"
FORMAT: Final = 1
_LAYOUT: Final = struct.Struct(">8sHBBBxI16s16s")
HEADER_BYTES: Final = 64
_CHECKSUM_BYTES: Final = HEADER_BYTES - _LAYOUT.size
KEY_MEMORY_LIMIT_BYTES: Final = 256 * 2**20  # a header must not make a small box run out of memory
LARGEST_PASSES: Final = 4


@dataclass(frozen=True)
class Kdf:
    """Cost of trying one passphrase (RFC 7914): 128 * r * N bytes of memory, `p` passes."""

    log2_n: int = 17
    r: int = 8
    p: int = 1

    @property
    def memory_bytes(self) -> int:
        """What scrypt takes."""
        return 128 * self.r << self.log2_n


@dataclass(frozen=True)
class Header:
    """What stands at the start of each part of an archive; the parts differ in `part` (0, 1, ...) alone."""

    kdf: Kdf
    salt: bytes
    key_check: bytes
    part: int = 0

    def pack(self) -> bytes:
        """The 64 bytes."""
        kdf = self.kdf
        start = _LAYOUT.pack(MAGIC, FORMAT, kdf.log2_n, kdf.r, kdf.p, self.part, self.salt, self.key_check)
        return start + _checksum(start)

    def of_part(self, part: int) -> Header:
        """The header of another part of the same archive."""
        return dataclasses.replace(self, part=part)


def new_header(passphrase: bytes, kdf: Kdf) -> tuple[Header, bytes]:
    """Header and sealing key (32 bytes) of a new archive; its salt makes the key one that was never used."""
    salt = os.urandom(16)
    key, key_check = _derive(passphrase, kdf, salt)
    return Header(kdf, salt, key_check), key


def sealing_key(passphrase: bytes, header: Header) -> bytes:
    """The key (32 bytes) of an archive. Raises BackupError (backup.wrong-passphrase)."""
    key, key_check = _derive(passphrase, header.kdf, header.salt)
    if not hmac.compare_digest(key_check, header.key_check):
        message = "expected the passphrase that the backup was written with, got another one"
        raise BackupError(message, code="backup.wrong-passphrase")
    return key


def parse_header(content: bytes) -> Header:
    """Read the first 64 bytes of a part. Raises BackupError: backup.not-a-backup, .cut, .damaged, .newer."""
    if content[: len(MAGIC)] != MAGIC[: len(content)] or not content:
        raise BackupError("expected a backup of radbox, got another file", code="backup.not-a-backup")
    if len(content) < HEADER_BYTES:
        raise BackupError("expected a whole backup, got one that ends in its first bytes", code="backup.cut")
    start = content[: _LAYOUT.size]
    if content[_LAYOUT.size : HEADER_BYTES] != _checksum(start):
        raise BackupError("expected a whole backup, got one whose first bytes are damaged", code="backup.damaged")
    _, found, log2_n, r, p, part, salt, key_check = _LAYOUT.unpack(start)
    if found > FORMAT:
        message = f"expected a backup of format {FORMAT}, got format {found}: this box needs newer software to read it"
        raise BackupError(message, code="backup.newer")
    kdf = Kdf(log2_n, r, p)
    bounded = 1 <= log2_n <= 30 and r >= 1 and 1 <= p <= LARGEST_PASSES and kdf.memory_bytes <= KEY_MEMORY_LIMIT_BYTES
    if found < FORMAT or not bounded:
        message = "expected a header with key parameters that a small box can bear, got others"
        raise BackupError(message, code="backup.damaged")
    return Header(kdf, salt, key_check, part)


def _derive(passphrase: bytes, kdf: Kdf, salt: bytes) -> tuple[bytes, bytes]:
    secret = Scrypt(salt=salt, length=32, n=1 << kdf.log2_n, r=kdf.r, p=kdf.p).derive(passphrase)
    return _expand(secret, b"radbox backup 1: chunks", 32), _expand(secret, b"radbox backup 1: key check", 16)


def _expand(secret: bytes, use: bytes, length: int) -> bytes:
    return HKDFExpand(algorithm=SHA256(), length=length, info=use).derive(secret)


def _checksum(start: bytes) -> bytes:
    return hashlib.sha256(start).digest()[:_CHECKSUM_BYTES]
