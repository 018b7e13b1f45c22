"""What a box makes of a verified stick: the chain of roots, counters, epoch, revocations, board, software."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from edge.errors import UpdateError
from edge.trust import (
    MOST_ROOTS,
    FileEntry,
    Offer,
    SnapshotFacts,
    Trusted,
    after_roots,
    decide,
    root_version,
    verify_roots,
)
from tests.update_stick import Organisation, make_organisation
from tools.update.sign import sign_document

Json = dict[str, Any]
BOX = Trusted(b"", snapshot_version=5, epoch=2, versions={"chest": 3}, revoked=frozenset({"e" * 64, "f" * 64}))
INDEX = SnapshotFacts(5, {"chest": 4, "other": 1})
OFFER = Offer(
    slot="a" * 64,
    id="chest",
    version=4,
    label="0.4.0",
    epoch=2,
    files=(FileEntry("manifest.json", 1, "b" * 64),),
    manifest_sha256="b" * 64,
    revokes=(),
    budgets={},
    words="New.",
    boards=("pi5", "sim"),
    needs="0.1.0",
)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(UpdateError) as caught:
        call()
    assert caught.value.message.strip()
    return caught.value.code


@pytest.fixture
def office(tmp_path: Path) -> Organisation:
    return make_organisation(tmp_path)


# Policy.


@pytest.mark.parametrize("software", ["0.1.0", "0.1", "0.1.0.dev3", "0.2", "1.0.0", "0.10.0"])
def test_a_newer_bundle_is_taken(software: str) -> None:
    decide(BOX, INDEX, OFFER, "sim", software)
    decide(BOX, INDEX, replace(OFFER, boards=("*",), epoch=9), "any-board", software)


@pytest.mark.parametrize(
    ("index", "offer", "code"),
    [
        ({"version": 4}, {}, "update.replayed"),
        ({"versions": {"chest": 5}}, {}, "update.replayed"),
        ({"versions": {"chest": 2}}, {"version": 2}, "update.replayed"),
        ({"versions": {"chest": 3}}, {"version": 3}, "update.not-newer"),
        ({"versions": {"chest": 3}}, {"version": 4}, "update.metadata"),
        ({"versions": {}}, {}, "update.metadata"),
        ({}, {"epoch": 1}, "update.epoch"),
        ({}, {"slot": "f" * 64}, "update.revoked"),
        ({}, {"manifest_sha256": "e" * 64}, "update.revoked"),
        ({}, {"revokes": ("b" * 64,)}, "update.revoked"),
        ({}, {"boards": ("pi5",)}, "update.other-board"),
        ({}, {"needs": "0.1.1"}, "update.needs-newer-box"),
        ({}, {"needs": "0.10"}, "update.needs-newer-box"),
    ],
)
def test_each_rule_has_its_code(index: Json, offer: Json, code: str) -> None:
    assert code_of(lambda: decide(BOX, replace(INDEX, **index), replace(OFFER, **offer), "sim", "0.1.0")) == code


# Roots.


def changed_root(office: Organisation, change: Callable[[Json], object]) -> bytes:
    """The next root with a change that all root keys signed."""
    signed = json.loads(office.root)["signed"]
    signed["version"] += 1
    change(signed)
    return sign_document(signed, office.root_keys)


def no_change(_signed: Json) -> None: ...


def one_key_under_two_names(signed: Json) -> None:
    role = signed["roles"]["targets"]
    signed["keys"]["0" * 64] = signed["keys"][role["keyids"][0]]
    role["keyids"][1] = "0" * 64


def rsa_key(signed: Json) -> None:
    key = signed["keys"][signed["roles"]["targets"]["keyids"][0]]
    key.update(keytype="rsa", scheme="rsassa-pss-sha256")


@pytest.mark.parametrize(
    "change",
    [
        one_key_under_two_names,
        rsa_key,
        lambda s: s.update(version=1),
        lambda s: s.update(version=3),
        lambda s: s.update(more=1),
        lambda s: s.update(_type="targets"),
        lambda s: s["keys"].clear(),
        lambda s: s["keys"][s["roles"]["root"]["keyids"][0]]["keyval"].update(public="F" * 64),
        lambda s: s["roles"].pop("timestamp"),
        lambda s: s["roles"].update(admin=s["roles"]["root"]),
        lambda s: s["roles"]["targets"].update(threshold=1),
        lambda s: s["roles"]["root"].update(threshold=1),
        lambda s: s["roles"]["root"].update(threshold=0),
        lambda s: s["roles"]["targets"].update(threshold=4),
        lambda s: s["roles"]["targets"]["keyids"].append("0" * 64),
        lambda s: s["roles"]["targets"]["keyids"].append(s["roles"]["targets"]["keyids"][0]),
    ],
)
def test_a_root_that_weakens_or_confuses_is_refused(office: Organisation, change: Callable[[Json], object]) -> None:
    assert len(verify_roots(office.root, [*office.roots, changed_root(office, no_change)])) == 1
    chain = [*office.roots, changed_root(office, change)]
    assert code_of(lambda: verify_roots(office.root, chain)) == "update.root-chain"


def test_damaged_roots_have_their_code(office: Organisation) -> None:
    following = changed_root(office, no_change)
    for chain, code in (
        ([office.root, following[:-40]], "update.truncated"),
        ([office.root, following + b" " * 70_000], "update.too-large"),
        ([office.root, following.replace(b'"version":2', b'"version":2.0')], "update.root-chain"),
        ([office.root] * (MOST_ROOTS + 1), "update.too-many-files"),
        ([following, office.root], "update.root-chain"),
        ([changed_root(office, lambda signed: signed.update(version=3))], "update.root-chain"),  # and no root 2
    ):
        assert code_of(partial(verify_roots, office.root, chain)) == code
    assert code_of(lambda: verify_roots(office.root.replace(b'"version":1', b'"version":7'), [])) == "update.root-chain"


def test_a_root_needs_the_old_keys_and_its_own(office: Organisation) -> None:
    new = [CryptoSigner.generate_ed25519() for _ in range(3)]
    joins = {"root": new}
    for signers in (office.root_keys[:2], new[:2], [office.root_keys[0], new[0]], [*office.root_keys, new[0]]):
        office.rotate(joins, office.root_keys, signers)
        assert code_of(lambda: verify_roots(office.roots[0], office.roots)) == "update.root-chain"
        office.roots.pop()
    office.rotate(joins, office.root_keys, [*office.root_keys[:2], *new[:2]])
    assert verify_roots(office.roots[0], office.roots) == (office.root,)
    assert root_version(office.root) == 2


# Counters after a change of keys.


def test_counters_go_on_while_old_bundles_could_still_verify(office: Organisation) -> None:
    box = replace(BOX, root=office.root)
    assert after_roots(box, ()) == box
    new = CryptoSigner.generate_ed25519()
    office.rotate({"targets": [new]}, [office.release_keys[0]], office.root_keys[:2])
    assert after_roots(box, office.roots[1:]) == replace(box, root=office.root)


def test_counters_start_again_once_nothing_old_verifies(office: Organisation) -> None:
    """Thieves of two release keys, or of the snapshot key, may have run the counters to their end."""
    box = replace(BOX, root=office.root, snapshot_version=2**31 - 1, epoch=2**31 - 1, versions={"chest": 2**31 - 1})
    new = [CryptoSigner.generate_ed25519() for _ in range(3)]
    office.rotate({"targets": new[:2]}, office.release_keys[:2], office.root_keys[:2])
    known = after_roots(box, office.roots[1:])
    assert known == replace(box, root=office.root, epoch=0, versions={})
    office.rotate({"snapshot": new[2:]}, [office.snapshot_key], office.root_keys[:2])
    assert after_roots(known, office.roots[2:]) == replace(known, root=office.root, snapshot_version=0)
    assert known.revoked == box.revoked
