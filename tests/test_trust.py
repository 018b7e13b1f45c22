"""Trust as pure functions: what is taken, and every way of being refused, each with its code."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError

from edge.errors import UpdateError
from edge.trust import (
    LARGEST_METADATA_BYTES,
    Budget,
    Offer,
    decide,
    factory_root,
    root_version,
    verify_roots,
    verify_snapshot,
    verify_targets,
)
from tests.update_stick import Organisation, make_organisation, new_box, resign, small_bundle
from tools.update.release import Release, snapshot_signed
from tools.update.sign import add_signature, sign_document

RELEASE = Release("tiny", "0.1.0", 1, needs="0.0.1", budgets={"*": Budget(20.0, 1 << 30)})
Json = dict[str, Any]
MANY_FILES = {f"{n}.bin": {"length": 1, "hashes": {"sha256": "0" * 64}} for n in range(62)}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Organisation:
    return make_organisation(tmp_path_factory.mktemp("office"))


@pytest.fixture(scope="module")
def targets(office: Organisation) -> bytes:
    return office.targets(small_bundle(office.folder / "bundle"), RELEASE)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(UpdateError) as caught:
        call()
    assert caught.value.message.strip()
    assert len(caught.value.message) < 400
    return caught.value.code


def changed(office: Organisation, targets: bytes, change: Callable[[Json], object]) -> bytes:
    """A targets document with a change that two release keys signed."""
    signed = json.loads(targets)["signed"]
    change(signed)
    return sign_document(signed, office.release_keys[:2])


def test_an_honest_bundle_is_read_as_it_was_signed(office: Organisation, targets: bytes) -> None:
    offer = verify_targets(office.root, targets)
    assert offer.slot == hashlib.sha256(targets).hexdigest()
    assert (offer.id, offer.version, offer.label, offer.epoch) == ("tiny", 1, "0.1.0", 1)
    assert [file.name for file in offer.files] == ["card.md", "encoder.onnx", "manifest.json"]
    assert offer.files[1].size == len(b"weights")
    assert offer.files[1].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert offer.manifest_sha256 == offer.files[2].sha256
    assert offer.budgets == {"*": Budget(20.0, 1 << 30)}
    assert (offer.boards, offer.needs, offer.words) == (("*",), "0.0.1", RELEASE.words)


def test_the_factory_root_is_a_root(root: Path) -> None:
    assert root_version(factory_root()) >= 1
    assert verify_roots(factory_root(), [factory_root()]) == ()
    roles = json.loads(factory_root())["signed"]["roles"]
    assert [(roles[name]["threshold"], len(roles[name]["keyids"])) for name in ("root", "targets")] == [(2, 3), (2, 3)]


# Signatures and thresholds.


@given(st.sets(st.integers(0, 6), max_size=5), st.booleans())
@settings(max_examples=40, deadline=None)
@pytest.mark.requirement("UPD-01")
def test_two_different_release_keys_are_needed(
    office: Organisation, targets: bytes, who: set[int], twice: bool
) -> None:
    """Of root keys 0-2, release keys 3-5 and the snapshot key 6, only release keys count, and each once."""
    keys = [*office.root_keys, *office.release_keys, office.snapshot_key]
    document = sign_document(json.loads(targets)["signed"], [keys[one] for one in sorted(who)])
    if twice and who:
        document = add_signature(document, keys[min(who)])
    valid = len(who & {3, 4, 5})
    if valid >= 2:
        assert verify_targets(office.root, document).id == "tiny"
    else:
        code = code_of(lambda: verify_targets(office.root, document))
        assert code == ("update.too-few-signatures" if valid else "update.wrong-key")


def test_one_key_twice_counts_once(office: Organisation, targets: bytes) -> None:
    once = json.loads(sign_document(json.loads(targets)["signed"], office.release_keys[:1]))
    (signature,) = once["signatures"]
    same = {**once, "signatures": [signature, signature]}
    other_name = {**once, "signatures": [signature, {**signature, "keyid": office.release_keys[1].public_key.keyid}]}
    foreign_name = {**once, "signatures": [signature, {**signature, "keyid": "0" * 64}]}
    assert code_of(lambda: verify_targets(office.root, compact(same))) == "update.metadata"
    for document in (other_name, foreign_name):
        assert code_of(partial(verify_targets, office.root, compact(document))) == "update.too-few-signatures"


def test_signatures_under_each_others_names_count_nothing(office: Organisation, targets: bytes) -> None:
    document = json.loads(targets)
    first, second = document["signatures"]
    first["keyid"], second["keyid"] = second["keyid"], first["keyid"]
    assert code_of(lambda: verify_targets(office.root, compact(document))) == "update.wrong-key"


def test_another_organisation_is_nobody(office: Organisation, targets: bytes, tmp_path: Path) -> None:
    stranger = make_organisation(tmp_path)
    document = resign(targets, stranger.release_keys)
    assert code_of(lambda: verify_targets(office.root, document)) == "update.wrong-key"
    index = sign_document(snapshot_signed(1, {"tiny": 1}), [stranger.snapshot_key])
    assert code_of(lambda: verify_snapshot(office.root, index, 0)) == "update.wrong-key"


def compact(document: Json) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


# Damage.


@pytest.mark.requirement("UPD-01")
def test_no_changed_byte_is_believed(office: Organisation, targets: bytes) -> None:
    """One byte changed at every place, in one way that goes through all bits: refused, or the same signed content."""
    honest = verify_targets(office.root, targets)
    for place in range(len(targets)):
        damaged = bytearray(targets)
        damaged[place] ^= 1 << place % 8
        try:
            offer = verify_targets(office.root, bytes(damaged))
        except UpdateError:
            continue
        assert signed_part(offer) == signed_part(honest), place


def signed_part(offer: Offer) -> Json:
    return {**vars(offer), "slot": ""}


def test_no_beginning_is_believed(office: Organisation, targets: bytes) -> None:
    codes = {code_of(partial(verify_targets, office.root, targets[:end])) for end in range(len(targets))}
    assert codes == {"update.truncated"}


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda d: d + b"\n", "update.metadata"),
        (lambda d: d.replace(b",", b", ", 1), "update.metadata"),
        (lambda d: d.replace(b'"version":1', b'"version":1,"version":1', 1), "update.metadata"),
        (lambda d: d.replace(b'"version":1', b'"version":1.0', 1), "update.metadata"),
        (lambda d: d.replace(b'"version":1', b'"version":2', 1), "update.wrong-key"),
        (lambda d: d.replace(b'"version":1', b'"version":NaN', 1), "update.metadata"),
        (lambda d: d.replace(b'"version":1', b'"version":' + b"9" * 30, 1), "update.metadata"),
        (lambda d: d.replace(b'"version":1', b'"version":' + b"9" * 6000, 1), "update.metadata"),
        (lambda d: d.replace(b"tiny", b"\\u0074iny", 1), "update.metadata"),
        (lambda d: d.replace(b"tiny", b"\xff\xfe", 1), "update.metadata"),
        (lambda d: d.replace(b"tiny", b"\\ud800", 1), "update.metadata"),
        (lambda d: d.replace(b'"signed"', b'"signee"', 1), "update.metadata"),
        (lambda d: d[:-1] + b',"zzz":0}', "update.metadata"),
        (lambda d: b"", "update.truncated"),
        (lambda d: bytes(len(d)), "update.metadata"),
        (lambda d: b"[" * 60_000, "update.metadata"),
        (lambda d: b'{"signatures":[],"signed":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "update.metadata"),
        (lambda d: b'{"signatures":[],"signed":{"radbox":' + b"[" * 900 + b"]" * 900 + b"}}", "update.metadata"),
        (lambda d: b" " * (LARGEST_METADATA_BYTES + 1), "update.too-large"),
    ],
)
def test_damaged_documents_have_their_code(
    office: Organisation, targets: bytes, damage: Callable[[bytes], bytes], code: str
) -> None:
    assert code_of(lambda: verify_targets(office.root, damage(targets))) == code


# Signed by enough keys, and still refused: the tools never write it, but a box must not stumble over it.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: s.update(more=1), "update.metadata"),
        (lambda s: s.update(_type="snapshot"), "update.metadata"),
        (lambda s: s.update(spec_version="2.0"), "update.metadata"),
        (lambda s: s.update(expires="soon"), "update.metadata"),
        (lambda s: s.update(expires="2030-1-1T00:00:00Z"), "update.metadata"),
        (lambda s: s.update(version=0), "update.metadata"),
        (lambda s: s.update(version=True), "update.metadata"),
        (lambda s: s.update(version=2), "update.metadata"),
        (lambda s: s.update(delegations={"keys": {}, "roles": []}), "update.metadata"),
        (lambda s: s.pop("radbox"), "update.metadata"),
        (lambda s: s.update(radbox=[]), "update.metadata"),
        (lambda s: s["radbox"].update(schema=2), "update.schema"),
        (lambda s: s["radbox"].pop("schema"), "update.schema"),
        (lambda s: s["radbox"].update(schema=True), "update.metadata"),
        (lambda s: s["radbox"].update(more=1), "update.metadata"),
        (lambda s: s["radbox"].pop("epoch"), "update.metadata"),
        (lambda s: s["radbox"].update(epoch=2**31), "update.metadata"),
        (lambda s: s["radbox"].update(id="../tiny"), "update.metadata"),
        (lambda s: s["radbox"].update(label=""), "update.metadata"),
        (lambda s: s["radbox"].update(needs="new"), "update.metadata"),
        (lambda s: s["radbox"].update(words="one\ntwo"), "update.metadata"),
        (lambda s: s["radbox"].update(words="\u202etxet"), "update.metadata"),
        (lambda s: s["radbox"].update(words="x" * 301), "update.metadata"),
        (lambda s: s["radbox"].update(boards=[]), "update.metadata"),
        (lambda s: s["radbox"].update(boards=["a b"]), "update.metadata"),
        (lambda s: s["radbox"].update(revokes=["all"]), "update.metadata"),
        (lambda s: s["radbox"].update(manifest_sha256="0" * 64), "update.metadata"),
        (lambda s: s["radbox"].update(budgets={"*": {"p95_ms": 0, "memory_bytes": 1}}), "update.metadata"),
        (lambda s: s["targets"].pop("manifest.json"), "update.metadata"),
        (lambda s: s["targets"]["card.md"].update(length=-1), "update.metadata"),
        (lambda s: s["targets"]["card.md"].update(custom={}), "update.metadata"),
        (lambda s: s["targets"]["card.md"].update(hashes={"md5": "0" * 32}), "update.metadata"),
        (lambda s: s["targets"]["card.md"]["hashes"].update(sha256="F" * 64), "update.metadata"),
        (lambda s: s["targets"]["card.md"].update(length=(512 << 20) + 1), "update.too-large"),
        (lambda s: [s["targets"][name].update(length=400 << 20) for name in s["targets"]], "update.too-large"),
        (lambda s: s["targets"].update(MANY_FILES), "update.too-many-files"),
    ],
)
def test_signed_nonsense_is_refused(
    office: Organisation, targets: bytes, change: Callable[[Json], object], code: str
) -> None:
    assert code_of(lambda: verify_targets(office.root, changed(office, targets, change))) == code


@pytest.mark.parametrize(
    "name",
    [
        *("../card.md", "a/b", "a\\b", "/etc", ".hidden", "..", "", "x" * 101, "a\n", "a\x00b", "ä.md", "end.", "a b"),
        *("CARD.md", "targets.json", "Targets.JSON", "MANIFE~1.JSO", "c:x"),
    ],
)
@pytest.mark.requirement("UPD-06")
def test_only_plain_names_are_ever_opened(office: Organisation, targets: bytes, name: str) -> None:
    document = changed(office, targets, lambda s: s["targets"].update({name: s["targets"]["card.md"]}))
    assert code_of(lambda: verify_targets(office.root, document)) == "update.path"


# Anything at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=150, deadline=None)
def test_anything_at_all_ends_in_a_code(office: Organisation, content: bytes) -> None:
    for call in (verify_targets, partial(verify_snapshot, stored_version=0)):
        assert code_of(partial(call, office.root, content)).startswith("update.")
    assert code_of(partial(verify_roots, office.root, [content])).startswith("update.")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_signed_json_ends_in_a_code_or_an_offer(office: Organisation, targets: bytes, data: st.DataObject) -> None:
    """One value anywhere in the signed part is replaced; with one key it is never taken, with two never a surprise."""
    signed = json.loads(targets)["signed"]
    replace_somewhere(signed, data)
    try:
        alone, both = (sign_document(signed, office.release_keys[:n]) for n in (1, 2))
    except (ValueError, FormatError):  # canonical JSON has no fractions, UTF-8 no halves of characters
        return
    assert code_of(lambda: verify_targets(office.root, alone)) != ""
    try:
        offer = verify_targets(office.root, both)
    except UpdateError:
        return
    assert len(offer.files) <= 64
    assert all(file.name in signed["targets"] and Path(file.name).name == file.name for file in offer.files)


def replace_somewhere(value: Any, data: st.DataObject) -> None:
    """Walk down a random path of `value` and put anything at its end."""
    while True:
        keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(value[key], (dict, list)) and value[key] and data.draw(st.booleans()):
            value = value[key]
            continue
        value[key] = data.draw(JSON)
        return


# The index.


def test_an_index_is_read(office: Organisation) -> None:
    facts = verify_snapshot(office.root, office.snapshot(7, {"tiny": 3, "chest": 9}), 7)
    assert (facts.version, dict(facts.versions)) == (7, {"tiny": 3, "chest": 9})


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (lambda o: o.snapshot(6, {"tiny": 3}), "update.replayed"),
        (lambda o: o.snapshot(7, {"tiny": 3}, o.release_keys[0]), "update.wrong-key"),
        (lambda o: sign_document(snapshot_signed(7, {"tiny": 3}), []), "update.wrong-key"),
        (lambda o: o.snapshot(7, {"../tiny": 3}), "update.metadata"),
        (lambda o: o.snapshot(7, {"tiny": 0}), "update.metadata"),
        (lambda o: o.snapshot(7, {f"b{n}": 1 for n in range(257)}), "update.metadata"),
        (lambda o: resign(o.snapshot(7, {}), [o.snapshot_key], meta={"tiny": {"version": 1}}), "update.metadata"),
        (lambda o: o.root, "update.metadata"),
    ],
)
def test_an_index_is_refused(office: Organisation, document: Callable[[Organisation], bytes], code: str) -> None:
    assert code_of(lambda: verify_snapshot(office.root, document(office), 7)) == code


# Clocks.

AT_ANOTHER_TIME = """
import datetime, pathlib, sys, time
year, patch, folder = int(sys.argv[1]), sys.argv[2] == "patched", pathlib.Path(sys.argv[3])
if patch:
    then = datetime.datetime(year, 1, 2, tzinfo=datetime.timezone.utc)
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return then.astimezone(tz)
        utcnow = today = now
    datetime.datetime, time.time = Clock, then.timestamp
assert datetime.datetime.now().year == year == time.gmtime(time.time()).tm_year
from edge.trust import decide, verify_roots, verify_snapshot, verify_targets, Trusted
root, index, targets = ((folder / name).read_bytes() for name in ("1.root.json", "snapshot.json", "targets.json"))
assert verify_roots(root, [root]) == ()
box = Trusted(root, 0, 0, {}, frozenset())
decide(box, verify_snapshot(root, index, 0), verify_targets(root, targets), "sim", "0.1.0")
"""
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.mark.parametrize("year", [1970, 2090])
@pytest.mark.parametrize("how", ["patched", "faketime"])
@pytest.mark.requirement("UPD-02")
def test_no_clock_can_stop_an_update(
    office: Organisation, targets: bytes, how: str, year: int, tmp_path: Path, root: Path
) -> None:
    """Signed to expire in 2001 and 1971, taken in 1970 and in 2090: Python's clock replaced, or the C library's."""
    if how == "faketime" and not FAKETIME:
        pytest.skip("libfaketime is not installed")
    (tmp_path / "1.root.json").write_bytes(office.roots[0])
    index = resign(office.snapshot(1, {"tiny": 1}), [office.snapshot_key], expires="1971-01-01T00:00:00Z")
    (tmp_path / "snapshot.json").write_bytes(index)
    late = changed(office, targets, lambda signed: signed.update(expires="2001-01-01T00:00:00Z"))
    (tmp_path / "targets.json").write_bytes(late)
    clock = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": f"@{year}-01-02 00:00:00"} if how == "faketime" else {}
    command = [sys.executable, "-c", AT_ANOTHER_TIME, str(year), how, str(tmp_path)]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **clock, "TZ": "UTC"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_trust_only_reads_what_it_is_given(office: Organisation, targets: bytes) -> None:
    """The same bytes give the same answer; nothing is remembered from a refused document."""
    first = verify_targets(office.root, targets)
    assert code_of(lambda: verify_targets(office.root, targets[:-9])) == "update.truncated"
    assert copy.deepcopy(first) == verify_targets(office.root, targets)
    decide(new_box(office.root), verify_snapshot(office.root, office.snapshot(1, {"tiny": 1}), 0), first, "sim", "1.0")
