"""Bytes of one signed document -> its parsed form, bounded and in exactly one way of writing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from edge.closed import Bounds, ClosedError, build
from edge.errors import UpdateError

LARGEST_METADATA_BYTES = 64 << 10  # of one metadata file
MOST_ROOTS = 256  # a rotation every year for 256 years
LARGEST_NUMBER = 2**31 - 1  # of a version counter or epoch
MOST_KEYS = 16  # of one role
_LONGEST_NUMBER = 16  # digits

T = TypeVar("T")
BOUNDS: Bounds = {"version": (1, LARGEST_NUMBER), "threshold": (1, MOST_KEYS)}


@dataclass(frozen=True)
class KeyValue:
    """Ed25519 public key (RFC 8032), 64 hex digits."""

    public: str


@dataclass(frozen=True)
class KeyShape:
    """A key of the root document. Other kinds of keys than Ed25519 are not known to this box."""

    keytype: Literal["ed25519"]
    scheme: Literal["ed25519"]
    keyval: KeyValue


@dataclass(frozen=True)
class RoleShape:
    """Who signs for a role: `threshold` of the keys in `keyids`."""

    keyids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True)
class RolesShape:
    """The four roles of TUF. The box reads no timestamp document: freshness is the snapshot's counter."""

    root: RoleShape
    targets: RoleShape
    snapshot: RoleShape
    timestamp: RoleShape


@dataclass(frozen=True)
class RootShape:
    """The signed part of n.root.json."""

    _type: Literal["root"]
    spec_version: str
    version: int
    expires: str
    consistent_snapshot: bool
    keys: dict[str, KeyShape]
    roles: RolesShape


@dataclass(frozen=True)
class VersionShape:
    """One line of the snapshot."""

    version: int


@dataclass(frozen=True)
class SnapshotShape:
    """The signed part of snapshot.json; meta: "<bundle id>.json" -> version of its targets.json."""

    _type: Literal["snapshot"]
    spec_version: str
    version: int
    expires: str
    meta: dict[str, VersionShape]


@dataclass(frozen=True)
class HashesShape:
    """Exactly one digest, in hex."""

    sha256: str


@dataclass(frozen=True)
class TargetShape:
    """One file: length in bytes."""

    length: int
    hashes: HashesShape


@dataclass(frozen=True)
class TargetsShape:
    """The signed part of targets.json without the block `radbox`, which `edge.trust.offer` reads."""

    _type: Literal["targets"]
    spec_version: str
    version: int
    expires: str
    targets: dict[str, TargetShape]


@dataclass(frozen=True)
class SignatureShape:
    """keyid: which key of the root document; sig: Ed25519 signature in hex."""

    keyid: str
    sig: str


@dataclass(frozen=True)
class _Signatures:
    signatures: tuple[SignatureShape, ...]


def write_document(document: dict[str, Any]) -> bytes:
    """The one way of writing a document: JSON (RFC 8259) without spaces, keys sorted, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def read_document(document: bytes, what: str) -> dict[str, Any]:
    """Parse `document`, an object with `signed` and `signatures`. what: names it in messages.

    Only the form of `write_document` is read: whitespace, repeated keys, other spellings of a character are refused,
    so nobody without a key can make a second file of the same content with another sha256. Numbers with a fraction
    are refused because canonical JSON, over which TUF signs, has none.
    Raises UpdateError: update.too-large, update.truncated, update.metadata.
    """
    if len(document) > LARGEST_METADATA_BYTES:
        raise UpdateError(
            f"expected {what} to have at most {LARGEST_METADATA_BYTES} bytes, got more", code="update.too-large"
        )
    try:
        parsed = json.loads(document.decode(), parse_int=_whole, parse_float=_no_fraction, parse_constant=_no_fraction)
        same = isinstance(parsed, dict) and write_document(parsed) == document
    except json.JSONDecodeError as error:
        if _cut_off(error):
            raise UpdateError(
                f"expected the whole of {what}, got only its beginning", code="update.truncated"
            ) from error
        refuse(what, "expected JSON, got something else", error)
    except (ValueError, RecursionError) as error:
        refuse(what, "expected short whole numbers, flat lists and text, got something else", error)
    if not same or set(parsed) != {"signed", "signatures"} or not isinstance(parsed["signed"], dict):
        refuse(what, "expected one signed object written without spaces, keys sorted, got something else")
    shape(_Signatures, {"signatures": parsed["signatures"]}, what)
    return parsed  # type: ignore[no-any-return]  # json.loads


def shape(cls: type[T], value: object, what: str, bounds: Bounds = BOUNDS) -> T:
    """`value` as the closed dataclass `cls`. Raises UpdateError: update.metadata."""
    try:
        return build(cls, value, what, bounds)
    except (ClosedError, RecursionError) as error:
        refuse(what, str(error), error)


def refuse(what: str, why: str, cause: BaseException | None = None) -> NoReturn:
    """Raise UpdateError update.metadata."""
    raise UpdateError(
        f"{what[0].upper()}{what[1:]} is not in a form this box knows: {why}", code="update.metadata"
    ) from cause


def _cut_off(error: json.JSONDecodeError) -> bool:
    return error.pos >= len(error.doc) or error.msg.startswith("Unterminated string")


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("number too long")
    return int(digits)


def _no_fraction(_digits: str) -> NoReturn:
    raise ValueError("number with a fraction")
