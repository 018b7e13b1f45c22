"""Signed documents as the box reads them: making roots, signing, counting signatures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]
from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]

from edge.errors import UpdateError
from edge.trust.document import read_document, write_document

FAR_AWAY = "9999-12-31T23:59:59Z"  # TUF wants a date; no box ever looks at it
SPEC_VERSION = "1.0.31"
THRESHOLDS = {"root": 2, "targets": 2, "snapshot": 1, "timestamp": 1}


@dataclass(frozen=True)
class Count:
    """Valid signatures on a document, by the keys of one role."""

    role: str
    signed: tuple[str, ...]  # keyids
    threshold: int

    @property
    def enough(self) -> bool:
        """Whether the box would take it."""
        return len(self.signed) >= self.threshold


def sign_document(signed: Mapping[str, Any], signers: Iterable[CryptoSigner]) -> bytes:
    """Bytes of a document whose signed part is `signed`."""
    payload = _payload(signed)
    signatures = [signer.sign(payload).to_dict() for signer in signers]
    return write_document({"signed": dict(signed), "signatures": signatures})


def add_signature(document: bytes, signer: CryptoSigner) -> bytes:
    """`document` with one more signature; one that this key made before is replaced."""
    parsed = read_document(document, "the document")
    signature = signer.sign(_payload(parsed["signed"])).to_dict()
    kept = [one for one in parsed["signatures"] if one["keyid"] != signature["keyid"]]
    return write_document({"signed": parsed["signed"], "signatures": [*kept, signature]})


def first_root(keys: Mapping[str, Sequence[SSlibKey]], thresholds: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Signed part of 1.root.json. keys: root, targets, snapshot -> public keys; the timestamp role takes snapshot's."""
    by_role = {**keys, "timestamp": keys["snapshot"]}
    return {
        "_type": "root",
        "spec_version": SPEC_VERSION,
        "version": 1,
        "expires": FAR_AWAY,
        "consistent_snapshot": False,
        "keys": {key.keyid: key.to_dict() for one in keys.values() for key in one},
        "roles": {
            role: {"keyids": [key.keyid for key in by_role[role]], "threshold": threshold}
            for role, threshold in {**THRESHOLDS, **(thresholds or {})}.items()
        },
    }


def next_root(previous: bytes, add: Mapping[str, Sequence[SSlibKey]], drop: Iterable[str]) -> dict[str, Any]:
    """Signed part of the root after `previous`: keys of `add` (by role) join, those of `drop` (keyids) leave."""
    signed: dict[str, Any] = json.loads(previous)["signed"]
    signed["version"] += 1
    gone = set(drop)
    joining = {**add, "timestamp": add.get("snapshot", ())}
    for name, role in signed["roles"].items():
        role["keyids"] = [one for one in role["keyids"] if one not in gone]
        role["keyids"] += [key.keyid for key in joining.get(name, ()) if key.keyid not in role["keyids"]]
    for keys in add.values():
        signed["keys"].update({key.keyid: key.to_dict() for key in keys})
    used = {keyid for role in signed["roles"].values() for keyid in role["keyids"]}
    signed["keys"] = {keyid: key for keyid, key in signed["keys"].items() if keyid in used}
    return signed


def check_root(signed: Mapping[str, Any], earlier: Sequence[bytes]) -> None:
    """Refuse a root that would harm later: too few keys, one key in two roles, a key that had left coming back.

    Raises UpdateError (update.root-chain).
    """
    for name, role in signed["roles"].items():
        if len(role["keyids"]) < role["threshold"]:
            raise UpdateError(
                f"expected {role['threshold']} keys for {name}, got {len(role['keyids'])}: add a new key first",
                code="update.root-chain",
            )
    root, targets, snapshot = (set(signed["roles"][name]["keyids"]) for name in ("root", "targets", "snapshot"))
    if root & targets or root & snapshot or targets & snapshot:
        raise UpdateError("expected every key in one role only, got one in two roles", code="update.root-chain")
    documents = [json.loads(document)["signed"] for document in earlier]
    had = {keyid for document in documents for keyid in document["keys"]}
    came_back = set(signed["keys"]) & (had - set(documents[-1]["keys"])) if documents else set()
    if came_back:
        raise UpdateError(
            f"expected no key that was taken out before, got {sorted(came_back)[0][:12]}", code="update.root-chain"
        )


def count(document: bytes, root: bytes) -> Count:
    """Who of `root`'s keys signed `document` (a root document counts against the role root)."""
    role = read_document(document, "the document")["signed"]["_type"]
    metadata: Metadata[Any] = Metadata.from_bytes(document)
    judge: Root = Metadata[Root].from_bytes(root).signed
    result = judge.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return Count(role, tuple(result.signed), result.threshold)


def _payload(signed: Mapping[str, Any]) -> bytes:
    return str(encode_canonical(dict(signed))).encode()
