"""The root document: which keys sign what, and how one root hands over to the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from securesystemslib.exceptions import Error as SecuresystemslibError
from securesystemslib.formats import encode_canonical
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]  # exported without __all__

from edge.errors import UpdateError
from edge.trust.document import MOST_KEYS, MOST_ROOTS, RootShape, read_document, refuse, shape

FACTORY_ROOT = Path(__file__).parent.with_name("trusted_root.json")
SMALLEST_THRESHOLD = 2  # of the roles root and targets: no single person can change a box
PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
_ROOT_CHAIN = "update.root-chain"

Role = Literal["root", "targets", "snapshot"]


@dataclass(frozen=True)
class Signed:
    """A parsed document: what TUF makes of it, and the bytes that its signatures are over (canonical JSON)."""

    metadata: Metadata[Any]
    payload: bytes


def factory_root() -> bytes:
    """The root this software was built with, `edge/trusted_root.json`: where a new box's trust begins."""
    return FACTORY_ROOT.read_bytes()


def root_version(root: bytes) -> int:
    """Version of a root document that verifies under itself. Raises UpdateError as `verify_roots` does."""
    return open_root(root).version


def verify_roots(trusted_root: bytes, chain: Sequence[bytes]) -> tuple[bytes, ...]:
    """The roots of `chain` that are newer than the trusted one, each verified under its predecessor and itself.

    chain: a stick's roots in the order of their numbers, gaps refused. Older ones than the trusted root are passed
    over: trust only goes forward. (TUF 1.0, section 5.3.)
    Raises UpdateError: update.root-chain, update.too-large, update.truncated, update.too-many-files.
    """
    if len(chain) > MOST_ROOTS:
        raise UpdateError(f"expected at most {MOST_ROOTS} roots, got {len(chain)}", code="update.too-many-files")
    current = open_root(trusted_root)
    newer = []
    last = None
    for document in chain:
        signed, following = _parse_root(document)
        if last is not None and following.version != last + 1:
            raise UpdateError(f"expected root {last + 1} after root {last}, got {following.version}", code=_ROOT_CHAIN)
        last = following.version
        if following.version < current.version:
            continue
        if following.version == current.version:
            _same_root(trusted_root, signed)
            continue
        if following.version != current.version + 1:
            raise UpdateError(
                f"expected root {current.version + 1} on the stick, got none before {following.version}",
                code=_ROOT_CHAIN,
            )
        for judge, whose in ((current, f"root {current.version}"), (following, "itself")):
            _check_root(judge, signed, f"root {following.version} under {whose}")
        newer.append(document)
        current, trusted_root = following, document
    return tuple(newer)


def open_root(root: bytes) -> Root:
    """A root document that verifies under itself. Raises UpdateError as `verify_roots` does."""
    signed, parsed = _parse_root(root)
    _check_root(parsed, signed, f"root {parsed.version} under itself")
    return parsed


def open_signed(document: dict[str, Any], what: str) -> Signed:
    """What `tuf` makes of a document of known shape (which it takes apart), if it is all of what the document says.

    Raises UpdateError: update.metadata.
    """
    try:
        payload = str(encode_canonical(document["signed"])).encode()
        metadata: Metadata[Any] = Metadata.from_dict(document)
        same = metadata.signed_bytes == payload
    except (RepositoryError, SecuresystemslibError, ValueError, KeyError, TypeError, RecursionError) as error:
        refuse(what, "expected metadata of The Update Framework 1.0, got something else", error)
    if not same:
        refuse(what, "expected numbers and dates in their usual form, got others")
    return Signed(metadata, payload)


def check_signatures(root: Root, role: Role, signed: Signed, what: str) -> None:
    """Pass if enough different keys of `role` signed.

    Raises UpdateError: update.wrong-key, update.too-few-signatures.
    """
    result = root.get_verification_result(role, signed.payload, signed.metadata.signatures)
    if result.verified:
        return
    if not result.signed:
        raise UpdateError(
            f"expected {what} to be signed with {result.threshold} keys this box trusts, got none: "
            "it is from somebody else or was changed",
            code="update.wrong-key",
        )
    raise UpdateError(
        f"expected {what} to be signed with {result.threshold} keys this box trusts, got {len(result.signed)}",
        code="update.too-few-signatures",
    )


def _parse_root(document: bytes) -> tuple[Signed, Root]:
    try:
        raw = read_document(document, "the root")
        _check_keys(shape(RootShape, raw["signed"], "root"))
        signed = open_signed(raw, "the root")
    except UpdateError as error:
        if error.code == "update.metadata":
            raise UpdateError(error.message, code=_ROOT_CHAIN) from error
        raise
    return signed, signed.metadata.signed


def _check_keys(root: RootShape) -> None:
    """A person who holds one key must count once, and nobody alone may sign a model or a root."""
    publics = [key.keyval.public for key in root.keys.values()]
    if len(set(publics)) != len(publics) or not all(PUBLIC_KEY.fullmatch(public) for public in publics):
        refuse("the root", "expected different Ed25519 keys of 64 hex digits, got others")
    roles = root.roles
    for role in (roles.root, roles.targets, roles.snapshot, roles.timestamp):
        known = set(role.keyids) <= set(root.keys) and len(set(role.keyids)) == len(role.keyids) <= MOST_KEYS
        if not known or role.threshold > len(role.keyids):
            refuse("the root", "expected each role to have as many known keys as must sign, got fewer")
    if min(roles.root.threshold, roles.targets.threshold) < SMALLEST_THRESHOLD:
        refuse("the root", f"expected {SMALLEST_THRESHOLD} keys to be needed for roots and models, got fewer")


def _check_root(judge: Root, signed: Signed, what: str) -> None:
    try:
        check_signatures(judge, "root", signed, what)
    except UpdateError as error:
        raise UpdateError(error.message, code=_ROOT_CHAIN) from error


def _same_root(trusted_root: bytes, other: Signed) -> None:
    trusted, parsed = _parse_root(trusted_root)
    if trusted.payload != other.payload:
        raise UpdateError(
            f"expected root {parsed.version} to be the one this box trusts, got another of the same number",
            code=_ROOT_CHAIN,
        )
