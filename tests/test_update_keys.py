"""docs/keys.md rehearsed: the commands it names, on key files, and what a box does with the sticks that come of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import UpdateError
from edge.trust import Trusted, after_roots, root_version, verify_roots, verify_targets
from tests.update_stick import new_box, signed_bundle
from tools.update.make import main
from tools.update.stick import Checked, check_stick, read_roots

FIRST = ("anna-root", "ben-root", "chen-root", "dora-release", "emil-release", "fay-release", "gus-snapshot")
LATER = ("hana-release", "ivan-release", "june-root", "kim-snapshot")
LAST_NUMBER = 2**31 - 1


class Rehearsal:
    """An organisation with key files in the current folder, and one box."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sticks = 0
        for holder in (*FIRST, *LATER):
            self.run(f"keygen {holder}.key --no-passphrase")
        signed_bundle(folder / "bundle")
        joining = " ".join(f"--{holder.split('-')[1]}-key {holder}.pub" for holder in FIRST)
        self.run(f"root roots {joining} --key anna-root.key")
        self.run("sign roots/1.root.json --key ben-root.key")
        self.box = new_box(self.roots[0])

    @property
    def roots(self) -> list[bytes]:
        return read_roots(self.folder / "roots")

    def run(self, line: str) -> None:
        assert main(shlex.split(line)) == 0, line

    def rotate(self, options: str, signers: Sequence[str] = ("anna-root", "ben-root")) -> None:
        self.run(f"root roots {options} " + " ".join(f"--key {one}.key" for one in signers))

    def release(
        self, *signers: str, previous: str = "", more: str = "", roots: str = "roots", snapshot: str = "gus-snapshot"
    ) -> str:
        """A stick; returns the name of its folder."""
        self._sticks += 1
        name = f"release-{self._sticks}"
        keys = " ".join(f"--key {one}.key" for one in signers)
        before = f"--previous {previous}" if previous else ""
        self.run(
            f"stick bundle --out {name} --roots {roots} --snapshot-key {snapshot}.key --trusted-keys trusted_keys.txt "
            f"{keys} {before} {more}"
        )
        return name

    def release_of_thieves(self, *signers: str, previous: str = "", more: str = "") -> str:
        """A stick made with stolen keys and the first root, which is all that thieves of release keys need."""
        (self.folder / "first").mkdir(exist_ok=True)
        (self.folder / "first" / "1.root.json").write_bytes(self.roots[0])
        return self.release(*signers, previous=previous, more=more, roots="first")

    def check(self, stick: str, box: Trusted) -> Checked:
        return check_stick(self.folder / stick, box, "sim", "9.0")

    def plug_in(self, stick: str) -> None:
        """The box takes a stick, as the updater does: roots, counters, epoch, revocations."""
        checked = self.check(stick, self.box)
        known = after_roots(self.box, checked.roots)
        for offer in checked.offers:
            known = Trusted(
                known.root,
                checked.index.version,
                max(known.epoch, offer.epoch),
                {**known.versions, offer.id: offer.version},
                known.revoked | set(offer.revokes),
            )
        self.box = known

    def refused(self, stick: str, box: Trusted | None = None) -> str:
        with pytest.raises(UpdateError) as caught:
            self.check(stick, box or self.box)
        return caught.value.code


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    monkeypatch.chdir(tmp_path)
    return Rehearsal(tmp_path)


def test_lost_release_key_is_replaced_by_the_two_that_remain(rehearsal: Rehearsal) -> None:
    old = rehearsal.release("dora-release", "emil-release")
    rehearsal.plug_in(old)
    (rehearsal.folder / "dora-release.key").unlink()
    rehearsal.rotate("--drop dora-release.pub --release-key hana-release.pub")
    rehearsal.plug_in(rehearsal.release("emil-release", "hana-release", previous=old))
    assert root_version(rehearsal.box.root) == 2
    assert (rehearsal.box.snapshot_version, rehearsal.box.versions) == (2, {"tiny": 2})  # counters went on


def test_lost_root_key_is_replaced_by_the_two_that_remain(rehearsal: Rehearsal) -> None:
    (rehearsal.folder / "chen-root.key").unlink()
    rehearsal.rotate("--drop chen-root.pub --root-key june-root.pub")
    rehearsal.rotate("--drop anna-root.pub --root-key hana-release.pub", ("ben-root", "june-root"))
    rehearsal.plug_in(rehearsal.release("dora-release", "emil-release"))
    assert root_version(rehearsal.box.root) == 3


def test_stolen_release_key_signs_nothing_any_more(rehearsal: Rehearsal) -> None:
    """Dora's key was stolen. With Emil's it made a stick before; with the new root that stick is refused."""
    stolen = rehearsal.release("dora-release", "emil-release")
    assert rehearsal.refused(rehearsal.release_of_thieves("dora-release")) == "update.too-few-signatures"
    rehearsal.rotate("--drop dora-release.pub --release-key hana-release.pub")
    rehearsal.plug_in(rehearsal.release("emil-release", "hana-release", previous=stolen))
    thief = rehearsal.release_of_thieves("dora-release", "emil-release", previous="release-3")
    assert rehearsal.refused(thief) == "update.too-few-signatures"
    alone = rehearsal.release_of_thieves("dora-release", previous="release-3")
    assert rehearsal.refused(alone) == "update.wrong-key"


def test_a_box_from_the_cupboard_follows_all_roots(rehearsal: Rehearsal) -> None:
    old_box = rehearsal.box
    rehearsal.rotate("--drop dora-release.pub --release-key hana-release.pub")
    rehearsal.rotate("--drop chen-root.pub --root-key june-root.pub")
    rehearsal.rotate("--drop gus-snapshot.pub --snapshot-key kim-snapshot.pub", ("ben-root", "june-root"))
    stick = rehearsal.release("emil-release", "hana-release", snapshot="kim-snapshot")
    for start in (0, 1, 2, 3):
        rehearsal.box = replace(old_box, root=rehearsal.roots[start])
        rehearsal.plug_in(stick)
        assert root_version(rehearsal.box.root) == 4
    (rehearsal.folder / stick / "EDGE-UPDATE" / "root" / "3.root.json").unlink()
    assert rehearsal.refused(stick, old_box) == "update.wrong-key"  # root 2 does not know the new snapshot key


def test_roots_never_go_back(rehearsal: Rehearsal) -> None:
    """A stick of the time before a rotation, signed with keys that have left since."""
    old = rehearsal.release("dora-release", "emil-release")
    rehearsal.rotate("--drop dora-release.pub --release-key hana-release.pub")
    rehearsal.rotate("--drop emil-release.pub --release-key ivan-release.pub")
    rehearsal.plug_in(rehearsal.release("hana-release", "ivan-release"))
    assert verify_roots(rehearsal.box.root, rehearsal.roots[:1]) == ()
    assert root_version(rehearsal.box.root) == 3
    assert rehearsal.refused(old) == "update.wrong-key"


def test_two_roots_of_one_number_are_a_fork(rehearsal: Rehearsal) -> None:
    rehearsal.rotate("--drop dora-release.pub --release-key hana-release.pub")
    rehearsal.plug_in(rehearsal.release("emil-release", "hana-release"))
    (rehearsal.folder / "roots" / "2.root.json").rename(rehearsal.folder / "kept.json")
    rehearsal.rotate("--drop dora-release.pub --release-key ivan-release.pub")
    assert rehearsal.refused(rehearsal.release("emil-release", "ivan-release")) == "update.root-chain"


def test_stolen_snapshot_key_locks_nobody_out(rehearsal: Rehearsal) -> None:
    """A thief's index of the highest number makes honest sticks look old, until the key is replaced."""
    honest = rehearsal.release("dora-release", "emil-release")
    rehearsal.box = replace(rehearsal.box, snapshot_version=LAST_NUMBER)
    assert rehearsal.refused(honest) == "update.replayed"
    rehearsal.rotate("--drop gus-snapshot.pub --snapshot-key kim-snapshot.pub")
    rehearsal.plug_in(rehearsal.release("dora-release", "emil-release", previous=honest, snapshot="kim-snapshot"))
    assert rehearsal.box.snapshot_version == 2


def test_two_stolen_release_keys_and_the_way_back(rehearsal: Rehearsal) -> None:
    """What thieves can do with two release keys, and what the box does once it has seen the next root."""
    honest = rehearsal.release("dora-release", "fay-release")
    thief = rehearsal.release_of_thieves("dora-release", "emil-release", more=f"--epoch {LAST_NUMBER}")
    rehearsal.check(thief, rehearsal.box)  # possible: a box takes it
    rehearsal.plug_in(thief)
    rehearsal.box = replace(rehearsal.box, versions={"tiny": LAST_NUMBER})
    assert rehearsal.refused(honest) == "update.replayed"  # and is locked, so far
    rehearsal.rotate(
        "--drop dora-release.pub --drop emil-release.pub --release-key hana-release.pub --release-key ivan-release.pub"
    )
    healing = rehearsal.release("fay-release", "hana-release", previous=honest)
    rehearsal.plug_in(healing)  # the counters of the release role started again
    assert (rehearsal.box.versions, rehearsal.box.epoch) == ({"tiny": 2}, 1)
    for stick in (thief, honest):
        (targets,) = (rehearsal.folder / stick).glob("EDGE-UPDATE/bundles/*/targets.json")
        with pytest.raises(UpdateError):
            verify_targets(rehearsal.box.root, targets.read_bytes())


def test_one_stolen_root_key_does_nothing_and_two_do_everything(rehearsal: Rehearsal) -> None:
    """With two root keys a thief's root is taken; the organisation's own root of that number is then refused."""
    rehearsal.rotate("--drop chen-root.pub --root-key june-root.pub", ("anna-root",))
    assert root_chain_code(rehearsal.roots) == "update.root-chain"
    rehearsal.run("sign roots/2.root.json --key ben-root.key")
    rehearsal.plug_in(rehearsal.release("dora-release", "emil-release"))  # thieves' root
    (rehearsal.folder / "roots" / "2.root.json").unlink()
    rehearsal.rotate("--drop anna-root.pub --root-key june-root.pub", ("ben-root", "chen-root"))
    assert rehearsal.refused(rehearsal.release("dora-release", "emil-release")) == "update.root-chain"


def root_chain_code(roots: list[bytes]) -> str:
    with pytest.raises(UpdateError) as caught:
        verify_roots(roots[0], roots)
    return caught.value.code


def test_every_command_of_the_document_works_in_its_order(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of docs/keys.md, run as they stand: only --no-passphrase and --trusted-keys are added."""
    monkeypatch.chdir(tmp_path)
    for holder in (*FIRST[1:], *LATER):
        assert main(["keygen", f"{holder}.key", "--no-passphrase"]) == 0
    signed_bundle(tmp_path / "bundle")
    lines = re.findall(r"^(?:tools/make_update|cp) .*$", (root / "docs" / "keys.md").read_text(), re.MULTILINE)
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("tools/")]
    assert len(commands) == len(lines) - 1 == 9
    for command in commands[:-1]:
        extra = {"keygen": ["--no-passphrase"], "stick": ["--trusted-keys", "trusted_keys.txt"]}.get(command[0], [])
        assert main([*command, *extra]) == 0, command
    (tmp_path / "roots" / "2.root.json").unlink()  # each case of the document starts from the first root
    assert main(commands[-1]) == 0
    roots = read_roots(tmp_path / "roots")
    assert verify_roots(roots[0], roots) == (roots[1],)
