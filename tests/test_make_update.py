"""tools/make_update, as those who hold keys use it."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from edge.trust import verify_targets
from tests.update_stick import signed_bundle
from tools.update.make import main

HOLDERS = ("anna-root", "ben-root", "chen-root", "dora-release", "emil-release", "fay-release", "gus-snapshot")
TOP = "EDGE-UPDATE"


class Office:
    """A folder with keys, roots and bundles, and the tool run in it."""

    def __init__(self, folder: Path, printed: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._printed = printed

    def make(self, line: str) -> tuple[int, str]:
        """Run one command line, paths as they are; returns the exit code and all that was printed."""
        code = main(shlex.split(line))
        printed = self._printed.readouterr()
        return code, printed.out + printed.err

    def ok(self, line: str) -> str:
        code, printed = self.make(line)
        assert code == 0, printed
        return printed

    def refused(self, line: str, code: str) -> None:
        status, printed = self.make(line)
        assert (status, printed[-len(code) - 3 :]) == (1 if code.startswith("update.") else 2, f"[{code}]\n")

    def targets(self, stick: str) -> Path:
        (path,) = (self.folder / stick / TOP / "bundles").glob("*/targets.json")
        return path

    def block(self, stick: str) -> dict[str, object]:
        block: dict[str, object] = json.loads(self.targets(stick).read_text())["signed"]["radbox"]
        return block


@pytest.fixture
def office(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.chdir(tmp_path)
    office = Office(tmp_path, capsys)
    for holder in HOLDERS:
        office.ok(f"keygen {holder}.key --no-passphrase")
    office.ok(f"root roots {joining()} --key anna-root.key --key ben-root.key")
    signed_bundle(tmp_path / "bundle")
    return office


def joining() -> str:
    options = {"root": "--root-key", "release": "--release-key", "snapshot": "--snapshot-key"}
    return " ".join(f"{options[holder.split('-')[1]]} {holder}.pub" for holder in HOLDERS)


def stick_line(out: str, *more: str, keys: str = "--key dora-release.key --key emil-release.key") -> str:
    fixed = f"stick bundle --out {out} --roots roots --snapshot-key gus-snapshot.key --trusted-keys trusted_keys.txt"
    return " ".join((fixed, keys, *more))


def test_a_stick_that_a_box_takes(office: Office) -> None:
    budget = "--budget '*=20,1500' --budget pi5=45.5,900 --board pi5 --board sim --words 'Sees small effusions.'"
    printed = office.ok(stick_line("stick", budget))
    assert "tiny version 1 (0.1.0), epoch 1, boards pi5, sim, 3 files" in printed
    assert "verified" in office.ok("check stick --root roots/1.root.json --board sim")
    office.refused("check stick --root roots/1.root.json --board other", "update.other-board")
    office.refused("check stick", "update.root-chain")  # the factory's root is another organisation's
    offer = verify_targets((office.folder / "roots" / "1.root.json").read_bytes(), office.targets("stick").read_bytes())
    assert {board: (one.p95_s, one.memory_bytes >> 20) for board, one in offer.budgets.items()} == {
        "*": (20.0, 1500),
        "pi5": (45.5, 900),
    }
    assert offer.words == "Sees small effusions."
    assert sorted(file.name for file in offer.files) == ["card.md", "manifest.json", "manifest.sig"]


def test_the_next_release_goes_on_where_the_last_stopped(office: Office, tmp_path: Path) -> None:
    signed_bundle(tmp_path / "other", "0.2.0")
    office.ok(stick_line("first"))
    old = office.block("first")["manifest_sha256"]
    office.refused(stick_line("second", "--previous first --revoke first"), "config.invalid")  # revokes itself
    other = "--previous first --epoch 3 --revoke first"
    office.ok(stick_line("second", other).replace("stick bundle", "stick other"))
    second = office.block("second")
    assert (second["version"], second["epoch"], second["label"], second["revokes"]) == (2, 3, "0.2.0", [old])
    third_line = stick_line("third", f"--previous second --revoke {'c' * 64}")
    office.refused(third_line, "config.invalid")  # called back by the release before
    office.ok(third_line.replace("stick bundle", "stick other"))
    third = office.block("third")
    assert (third["version"], third["epoch"], third["revokes"]) == (3, 3, sorted([str(old), "c" * 64]))
    index = json.loads((tmp_path / "third" / TOP / "snapshot.json").read_text())["signed"]
    assert (index["version"], index["meta"]) == (3, {"tiny.json": {"version": 3}})


def test_writing_to_a_used_stick_keeps_only_its_outbox(office: Office, tmp_path: Path) -> None:
    office.ok(stick_line("first"))
    (tmp_path / "first" / TOP / "outbox" / "receipt.json").write_text("{}")
    office.ok(stick_line("first", "--previous first"))
    assert office.targets("first").parent.name == "tiny-2"
    assert (tmp_path / "first" / TOP / "outbox" / "receipt.json").exists()
    assert "version 2" in office.ok("check first --root roots/1.root.json")


def test_the_second_signature_comes_from_another_machine(office: Office, tmp_path: Path) -> None:
    """Only targets.json and the roots travel; the signer is shown what the files are."""
    printed = office.ok(stick_line("stick", keys="--key dora-release.key"))
    assert "1 valid signatures of role targets, 2 needed; 1 more: make_update sign" in printed
    office.refused("check stick --root roots/1.root.json", "update.too-few-signatures")
    there = tmp_path / "elsewhere.json"
    there.write_bytes(office.targets("stick").read_bytes())
    office.refused("sign elsewhere.json --key emil-release.key", "config.invalid")  # no roots beside it
    office.refused("sign elsewhere.json --roots roots --key anna-root.key", "config.invalid")  # no release key
    office.refused("sign elsewhere.json --roots roots", "config.invalid")
    assert there.read_bytes() == office.targets("stick").read_bytes()
    printed = office.ok("sign elsewhere.json --roots roots --key emil-release.key")
    assert str(office.block("stick")["manifest_sha256"]) in printed
    assert "2 valid signatures of role targets, 2 needed\n" in printed
    office.targets("stick").write_bytes(there.read_bytes())
    assert "verified" in office.ok("check stick --root roots/1.root.json")


def test_signing_twice_is_one_signature(office: Office) -> None:
    office.ok(stick_line("stick", keys="--key dora-release.key"))
    path = shlex.quote(str(office.targets("stick")))
    assert "1 valid signatures" in office.ok(f"sign {path} --key dora-release.key")
    assert len(json.loads(office.targets("stick").read_text())["signatures"]) == 1


def test_what_went_wrong_on_the_stick_is_told(office: Office, tmp_path: Path) -> None:
    office.ok(stick_line("stick"))
    files = office.targets("stick").with_name("files")
    check = "check stick --root roots/1.root.json"
    card, content = files / "card.md", (files / "card.md").read_bytes()
    for damage, code in (
        (content[:-1], "update.truncated"),
        (content[:-1] + b"!", "update.file-changed"),
        (content + b"!", "update.file-changed"),
    ):
        card.write_bytes(damage)
        office.refused(check, code)
    card.unlink()
    office.refused(check, "update.truncated")
    card.symlink_to(tmp_path / "bundle" / "card.md")
    office.refused(check, "update.truncated")
    card.unlink()
    card.write_bytes(content)
    (files / "more.bin").write_bytes(b"")
    office.refused(check, "update.extra-file")
    (files / "more.bin").unlink()
    office.ok(check)
    (tmp_path / "stick" / TOP / "snapshot.json").unlink()
    office.refused(check, "update.no-update")


def test_keys_are_encrypted_private_and_never_overwritten(office: Office, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    assert "keep it" in office.ok("keygen hal-root.key --passphrase-file secret")
    key = tmp_path / "hal-root.key"
    assert b"ENCRYPTED" in key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert "private" not in (tmp_path / "hal-root.pub").read_text().lower()
    office.refused("keygen hal-root.key --passphrase-file secret", "config.invalid")
    office.refused("keygen hal-root.txt --passphrase-file secret", "config.invalid")
    rotate = "root roots --root-key hal-root.pub --drop chen-root.pub --key anna-root.key --key hal-root.key"
    office.refused(f"{rotate} --passphrase-file wrong", "config.invalid")
    printed = office.ok(f"{rotate} --passphrase-file secret")
    assert "2.root.json: 1 valid signatures of role root, 2 needed" in printed  # hal is not in root 1
    assert "2.root.json: 2 valid signatures of role root, 2 needed\n" in printed
    assert "2 valid signatures" in office.ok("sign roots/2.root.json --key ben-root.key").split("\n")[-3]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--drop ben-root.pub --drop chen-root.pub", "update.root-chain"),
        ("--release-key anna-root.pub", "update.root-chain"),
        ("--root-key missing.pub", "config.invalid"),
        ("--root-key anna-root.key", "config.invalid"),
        ("--key missing.key", "config.invalid"),
        ("--key anna-root.pub", "config.invalid"),
    ],
)
def test_roots_that_would_harm_are_not_written(office: Office, tmp_path: Path, options: str, code: str) -> None:
    office.refused(f"root roots {options}", code)
    assert [path.name for path in (tmp_path / "roots").iterdir()] == ["1.root.json"]


def test_a_root_without_all_signatures_has_no_successor(office: Office) -> None:
    office.ok("root roots --drop chen-root.pub --key anna-root.key")
    office.refused("root roots --drop fay-release.pub --key anna-root.key --key ben-root.key", "update.root-chain")
    office.refused(stick_line("stick"), "update.root-chain")
    office.ok("sign roots/2.root.json --key ben-root.key")
    office.ok("root roots --drop fay-release.pub --key anna-root.key --key ben-root.key")
    office.refused("root roots --release-key fay-release.pub --key anna-root.key", "update.root-chain")  # came back


def test_a_bundle_that_no_box_could_load_is_not_released(office: Office, tmp_path: Path) -> None:
    (tmp_path / "bundle" / "notes.txt").write_text("x")
    office.refused(stick_line("stick"), "config.invalid")
    (tmp_path / "bundle" / "notes.txt").unlink()
    (tmp_path / "bundle" / "card.md").write_text("changed")
    code, printed = office.make(stick_line("stick"))
    assert (code, "[bundle.hash]" in printed) == (1, True)
    assert not (tmp_path / "stick").exists()


@pytest.mark.parametrize("script", ["make_update", "fleet"])
def test_the_scripts_start_anywhere(root: Path, tmp_path: Path, script: str) -> None:
    done = subprocess.run([root / "tools" / script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"usage: {script}" in done.stdout
