"""May this box take this offer? Counters, epoch, revocations, board and software; never a date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge.errors import UpdateError
from edge.trust.offer import RELEASE, Offer, SnapshotFacts
from edge.trust.root import Role, open_root


@dataclass(frozen=True)
class Trusted:
    """What a box knows. root: newest root; versions: bundle id -> highest version taken; revoked: sha256 of slots
    or manifests."""

    root: bytes
    snapshot_version: int
    epoch: int
    versions: Mapping[str, int]
    revoked: frozenset[str]


def decide(trusted: Trusted, snapshot: SnapshotFacts, offer: Offer, board: str, radbox_version: str) -> None:
    """Pass if a box of that board and software may take `offer` from a stick with that index.

    Raises UpdateError: update.replayed, update.not-newer, update.metadata (bundle is not the one of the index),
    update.epoch, update.revoked, update.other-board, update.needs-newer-box.
    """
    _check_counters(trusted, snapshot, offer)
    if offer.epoch < trusted.epoch:
        raise UpdateError(
            f"expected a bundle of security epoch {trusted.epoch} or later, got {offer.epoch}", code="update.epoch"
        )
    if {offer.slot, offer.manifest_sha256} & (trusted.revoked | set(offer.revokes)):
        raise UpdateError("expected a bundle that is in use, got one that was called back", code="update.revoked")
    if not {"*", board} & set(offer.boards):
        raise UpdateError(
            f"expected a bundle for board {board!r}, got one for {', '.join(offer.boards[:4])}",
            code="update.other-board",
        )
    if _release(radbox_version) < _release(offer.needs):
        raise UpdateError(
            f"expected software of version {offer.needs} or later on this box, got {radbox_version}: "
            "update the box's software first",
            code="update.needs-newer-box",
        )


def after_roots(trusted: Trusted, newer: Sequence[bytes]) -> Trusted:
    """What a box knows once it trusts the last of `newer` (from `verify_roots`).

    Thieves of a role's keys may have run its counters up to the end, which would keep honest updates out for ever. A
    counter therefore starts again when nothing signed before can verify any more: fewer keys than the new threshold
    were carried over. With enough old keys left it stays, else older bundles could be replayed (compare TUF 1.0,
    section 5.3.11, which starts the counters again after any change of keys).
    Raises UpdateError: update.root-chain if a root is damaged.
    """
    if not newer:
        return trusted
    known = replace(trusted, root=newer[-1])
    if _replaced(trusted.root, newer[-1], "snapshot"):
        known = replace(known, snapshot_version=0)
    if _replaced(trusted.root, newer[-1], "targets"):
        known = replace(known, epoch=0, versions={})
    return known


def _check_counters(trusted: Trusted, snapshot: SnapshotFacts, offer: Offer) -> None:
    if snapshot.version < trusted.snapshot_version:
        raise UpdateError(
            f"expected a stick at least as new as number {trusted.snapshot_version}, which this box has seen, "
            f"got number {snapshot.version}",
            code="update.replayed",
        )
    listed = snapshot.versions.get(offer.id, 0)
    if listed < offer.version:
        raise UpdateError("expected the bundle in the stick's index, got one that is not in it", code="update.metadata")
    had = trusted.versions.get(offer.id, 0)
    if offer.version < max(listed, had):
        raise UpdateError(
            f"expected version {max(listed, had)} of the bundle, got the older version {offer.version}",
            code="update.replayed",
        )
    if offer.version == had:
        raise UpdateError(f"expected a newer version than {had}, got the same", code="update.not-newer")


def _replaced(old: bytes, new: bytes, role: Role) -> bool:
    before, after = open_root(old), open_root(new)
    carried = {before.keys[one].keyval["public"] for one in before.roles[role].keyids} & {
        after.keys[one].keyval["public"] for one in after.roles[role].keyids
    }
    return len(carried) < after.roles[role].threshold


def _release(text: str) -> tuple[int, ...]:
    """Leading numbers of a version, "0.2.0.dev1" -> (0, 2); trailing zeros do not count."""
    found = RELEASE.match(text)
    numbers = [int(number) for number in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
