"""Receipts that boxes leave on sticks: bounded reading, signature, and what a set of them says of each box.

A receipt is whatever somebody put into a folder: nothing in it is believed before its signature and its serial number
(which is the beginning of the sha256 of the key) fit, and nothing of it reaches a terminal unchecked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.closed import ClosedError, build
from tools.update.release import FOLDER

LARGEST_RECEIPT_BYTES = 16 << 10
MOST_RECEIPTS = 100_000
SERIAL_LENGTH = 16  # hex digits
_LARGE = float(1 << 53)
_BOUNDS = {
    "number": (1, _LARGE),
    "p95_s": (0, 1e6),
    "memory_bytes": (0, _LARGE),
    "cases": (0, _LARGE),
    "compared": (0, _LARGE),
    "changed": (0, _LARGE),
    "free_bytes": (0, _LARGE),
    "studies": (0, _LARGE),
    "failed": (0, _LARGE),
    "running_s": (0, 1e12),
}


@dataclass(frozen=True)
class SelfTest:
    """95th percentile of the reading time in seconds, peak memory in bytes, golden cases read."""

    p95_s: float
    memory_bytes: int
    cases: int


@dataclass(frozen=True)
class Shadow:
    """Local cases read by both models, and how many reports would have changed."""

    compared: int
    changed: int


@dataclass(frozen=True)
class Receipt:
    """What a box says after an update. from_label, to_label: models before and after (`from` and `to` in the file)."""

    schema: int
    serial: str
    number: int
    board: str
    radbox: str
    from_label: str
    to_label: str
    slot: str
    code: str
    message: str
    self_test: SelfTest | None
    shadow: Shadow | None
    free_bytes: int
    studies: int
    failed: int
    running_s: float


@dataclass(frozen=True)
class Refused:
    """A file that is no believable receipt. name: printable, shortened."""

    name: str
    reason: str


@dataclass(frozen=True)
class Row:
    """One box: its newest receipt, how many different ones there are, and what is odd about them."""

    newest: Receipt
    receipts: int
    remarks: tuple[str, ...]


class ReceiptError(ValueError):
    """One reason in a few words."""


def read_receipt(content: bytes) -> Receipt:
    """A receipt whose signature and serial number fit. Raises ReceiptError."""
    if len(content) > LARGEST_RECEIPT_BYTES:
        raise ReceiptError("too large")
    try:
        envelope = json.loads(content.decode(), parse_constant=_no_number, object_pairs_hook=_no_repeats)
        if not isinstance(envelope, dict) or set(envelope) != {"receipt", "key", "signature"}:
            raise ReceiptError("not a receipt")
        public, signature = (base64.b64decode(envelope[name], validate=True) for name in ("key", "signature"))
        Ed25519PublicKey.from_public_bytes(public).verify(signature, receipt_bytes(envelope["receipt"]))
        receipt = build(Receipt, _renamed(envelope["receipt"]), "receipt", _BOUNDS)
    except InvalidSignature as error:
        raise ReceiptError("signature does not fit: changed or forged") from error
    except ClosedError as error:
        raise ReceiptError(f"not a receipt of schema 1: {error}") from error
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise error if isinstance(error, ReceiptError) else ReceiptError("not a receipt") from error
    if receipt.schema != 1:
        raise ReceiptError("not a receipt of schema 1")
    if receipt.serial != hashlib.sha256(public).hexdigest()[:SERIAL_LENGTH]:
        raise ReceiptError(f"signed with another key than that of box {printable(receipt.serial, SERIAL_LENGTH)}")
    return receipt


def receipt_bytes(receipt: Any) -> bytes:
    """The bytes that a box signs."""
    return json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode()


def find_receipts(folder: Path) -> Iterator[Path]:
    """*.json below `folder`, in order; of a stick or a copy of one only the outbox. Follows no links."""
    found = 0
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if here.name != FOLDER or name == "outbox")
        for name in sorted(names) if here.name != FOLDER else ():
            path = here / name
            if path.suffix == ".json" and not path.is_symlink() and path.is_file():
                found += 1
                if found > MOST_RECEIPTS:
                    return
                yield path


def read_folder(folder: Path) -> tuple[list[Receipt], list[Refused]]:
    """Every receipt below `folder`, and every file that is none."""
    receipts, refused = [], []
    for path in find_receipts(folder):
        try:
            with path.open("rb") as stream:
                receipts.append(read_receipt(stream.read(LARGEST_RECEIPT_BYTES + 1)))
        except ReceiptError as error:
            refused.append(Refused(printable(path.name, 60), printable(str(error), 200)))
        except OSError as error:
            refused.append(Refused(printable(path.name, 60), f"unreadable: {os.strerror(error.errno or 0)}"))
    return receipts, refused


def rows(receipts: Iterable[Receipt]) -> list[Row]:
    """One row for each box, by serial number; the same receipt from several sticks counts once."""
    boxes: dict[str, set[Receipt]] = {}
    for receipt in receipts:
        boxes.setdefault(receipt.serial, set()).add(receipt)
    return [_row(boxes[serial]) for serial in sorted(boxes)]


def printable(text: str, length: int) -> str:
    """`text` without anything that a terminal would act on, shortened."""
    return "".join(one if one.isprintable() else "?" for one in text[:length])


def _row(receipts: set[Receipt]) -> Row:
    newest = max(receipts, key=lambda one: (one.number, _order(one)))
    numbers = sorted({one.number for one in receipts})
    remarks = []
    if gaps := list(_gaps(numbers)):
        remarks.append(f"missing {', '.join(gaps[:3])}{' ...' if len(gaps) > 3 else ''}")
    if len(numbers) < len(receipts):
        remarks.append("one number on two receipts: restored from a copy, or a copied box")
    return Row(newest, len(receipts), tuple(remarks))


def _order(receipt: Receipt) -> float:
    """Among receipts of one number the one of the longer running time is newer."""
    return receipt.running_s


def _gaps(numbers: list[int]) -> Iterator[str]:
    for before, after in pairwise(numbers):
        if after - before == 2:
            yield str(before + 1)
        elif after - before > 2:
            yield f"{before + 1}-{after - 1}"


def _renamed(receipt: Any) -> Any:
    if not isinstance(receipt, dict) or {"from_label", "to_label"} & set(receipt):
        raise ReceiptError("not a receipt of schema 1")
    names = {"from": "from_label", "to": "to_label"}
    return {names.get(key, key): value for key, value in receipt.items()}


def _no_number(_word: str) -> NoReturn:
    raise ReceiptError("not a receipt")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _value in pairs}) != len(pairs):
        raise ReceiptError("not a receipt: a key twice")
    return dict(pairs)
