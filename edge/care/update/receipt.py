"""The box's signed word on how an update went, for the outbox of the stick. No patient data.

    {"receipt": {...}, "key": base64 public key, "signature": base64 over the canonical JSON of "receipt"}

The courier takes it home; `tools/fleet` makes a table of many. The outbox is written and never read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge import durable
from edge.care.update.stick import OUTBOX, TOP, open_below, removed
from edge.errors import StorageError, UpdateError
from edge.slots import UPDATE

SCHEMA: Final = 1
KEY: Final = UPDATE / "device.key"  # 32 bytes, RFC 8032 private key; mode 0600
LAST: Final = UPDATE / "receipt.json"
SERIAL_DIGITS: Final = 16
_KEY_BYTES = 32


@dataclass(frozen=True)
class Receipt:
    """A signed receipt as it goes onto the stick. name: <serial>-<number>.json."""

    name: str
    content: bytes


def device_key(data_dir: Path) -> Ed25519PrivateKey:
    """The key of this box, made on first use and durable before it signs anything. Raises StorageError."""
    path = data_dir / KEY
    with suppress(FileNotFoundError):
        stored = path.read_bytes()
        if len(stored) == _KEY_BYTES:
            return Ed25519PrivateKey.from_private_bytes(stored)
    key = Ed25519PrivateKey.generate()
    durable.make_directory(path.parent)
    durable.write_file(path, key.private_bytes_raw(), private=True)
    return key


def serial_of(key: Ed25519PrivateKey) -> str:
    """The box's serial number: the first 16 hex digits of the sha256 of its public key."""
    return hashlib.sha256(_public(key)).hexdigest()[:SERIAL_DIGITS]


def make_receipt(data_dir: Path, facts: dict[str, Any]) -> Receipt:
    """Number, sign and keep a receipt. facts: every field but schema, serial and number. Raises StorageError.

    The number goes on from the last receipt of this box; it starts again if that was lost.
    """
    key = device_key(data_dir)
    number = _last_number(data_dir) + 1
    receipt = {"schema": SCHEMA, "serial": serial_of(key), "number": number, **facts}
    envelope = {
        "receipt": receipt,
        "key": base64.b64encode(_public(key)).decode(),
        "signature": base64.b64encode(key.sign(canonical(receipt))).decode(),
    }
    content = json.dumps(envelope, indent=1, sort_keys=True).encode() + b"\n"
    durable.write_file(data_dir / LAST, content)
    return Receipt(f"{receipt['serial']}-{number}.json", content)


def canonical(receipt: dict[str, Any]) -> bytes:
    """The bytes that are signed."""
    return json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode()


def deliver(stick: Path, receipt: Receipt) -> None:
    """Write the receipt into the outbox of the stick mounted at `stick`, durably, following no links.

    Raises UpdateError: update.stick-removed (also a stick that is read-only or full), update.symlink, update.path.
    """
    with open_below(stick, TOP) as top:
        try:
            os.mkdir(OUTBOX, dir_fd=top)
            os.fsync(top)
        except FileExistsError:
            pass  # the usual case: the stick came with one
        except OSError as error:
            raise removed(error) from error
    with open_below(stick, TOP, OUTBOX) as outbox:
        try:
            durable.write_file(Path(f"/proc/self/fd/{outbox}") / receipt.name, receipt.content)
        except StorageError as error:
            raise UpdateError(f"expected to write the receipt: {error.message}", code="update.stick-removed") from error


def _last_number(data_dir: Path) -> int:
    try:
        number = json.loads((data_dir / LAST).read_bytes())["receipt"]["number"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return number if isinstance(number, int) and number > 0 else 0


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
