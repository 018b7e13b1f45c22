"""The attack matrix: whole sticks, written with the real tools and then made hostile, on a box that was updated before.

Each one is refused with its own code and its own plain sentence, is told in the events, changes nothing in state.json
but `last`, and leaves the same model in use. The clock is the one thing that is no reason to refuse.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.care.update import install as steps
from edge.care.update.words import OUTCOMES
from tests.test_install import TESTED
from tests.update_box import BUNDLE, ID, ROOT, Box, new_organisation, open_box
from tests.update_stick import resign, slot_of

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
CALLED_BACK = {"version": 3, "epoch": 2, "words": "Was called back."}


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that took version 2 of epoch 2 from stick number 2, which called one version 3 back."""
    folder = tmp_path_factory.mktemp("updated")
    with open_box(folder / "data", new_organisation(folder / "keys")) as box, pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "build", lambda bundle, board: ("tflite",))
        patch.setattr(steps, "self_test", lambda bundle, board, backends, budget: TESTED)
        called_back = slot_of(make(box, folder / "three", **CALLED_BACK), box.organisation.root)
        make(box, folder / "two", version=2, epoch=2, revokes=(called_back,))
        assert box.install(folder / "two").outcome.code == "update.installed"
        box.store.close()
        yield box


@pytest.fixture
def box(updated: Box, tmp_path: Path) -> Iterator[Box]:
    """A copy of that box."""
    shutil.copytree(updated.board.data_dir, tmp_path / "data")
    with open_box(tmp_path / "data", updated.organisation) as box:
        yield box


def make(box: Box, path: Path, **options: Any) -> Path:
    """A stick with the shipped bundle; returns its EDGE-UPDATE folder."""
    return box.organisation.stick(path, BUNDLE, **{"version": 3, "epoch": 2, "id": ID, **options})


def edit(top: Path, box: Box, **changes: Any) -> None:
    """Change the signed part of targets.json and have two honest keys sign it again."""
    (path,) = top.glob("bundles/*/targets.json")
    path.write_bytes(resign(path.read_bytes(), box.organisation.release_keys[:2], **changes))


def signed(top: Path) -> dict[str, Any]:
    """The signed part of targets.json."""
    (path,) = top.glob("bundles/*/targets.json")
    return json.loads(path.read_bytes())["signed"]


def files(top: Path) -> Path:
    """The folder of the bundle's files."""
    (path,) = top.glob("bundles/*/files")
    return path


Attack = Callable[[Box, Path], object]


def wrong_key(box: Box, path: Path) -> None:
    maker = type(box.organisation.snapshot_key)
    make(box, path, signers=[maker.generate_ed25519(), maker.generate_ed25519()])


def changed_after_signing(box: Box, path: Path) -> None:
    top = make(box, path)
    (targets,) = top.glob("bundles/*/targets.json")
    targets.write_bytes(targets.read_bytes().replace(b'"epoch":2', b'"epoch":9'))


def foreign_root(box: Box, path: Path) -> None:
    other = new_organisation(path.with_name("thieves"))
    other.rotate({}, [], other.root_keys[:2])
    other.stick(path, BUNDLE, 3, 2, id=ID)


def mixed_old_bundle(box: Box, path: Path) -> None:
    """An old bundle beside a new index."""
    make(box, path, version=1, snapshot_version=9, listed_version=3)


def unlisted(box: Box, path: Path) -> None:
    """A bundle that the index does not know yet: two sticks put together."""
    make(box, path, version=4, snapshot_version=3, listed_version=3)


def other_schema(box: Box, path: Path) -> None:
    top = make(box, path)
    edit(top, box, radbox={**signed(top)["radbox"], "schema": 2})


def extra_field(box: Box, path: Path) -> None:
    top = make(box, path)
    edit(top, box, radbox={**signed(top)["radbox"], "run": "/bin/sh"})


def traversal(name: str) -> Attack:
    def attack(box: Box, path: Path) -> None:
        top = make(box, path)
        targets = signed(top)["targets"]
        edit(top, box, targets={**targets, name: targets["card.md"]})

    return attack


def size_bomb(box: Box, path: Path) -> None:
    top = make(box, path)
    targets = signed(top)["targets"]
    edit(top, box, targets={**targets, "encoder.onnx": {**targets["encoder.onnx"], "length": 1 << 40}})
    os.truncate(files(top) / "encoder.onnx", 1 << 40)


def metadata_bomb(box: Box, path: Path) -> None:
    (targets,) = make(box, path).glob("bundles/*/targets.json")
    os.truncate(targets, 1 << 40)


def sparse_file(box: Box, path: Path) -> None:
    os.truncate(files(make(box, path)) / "encoder.onnx", 1 << 40)


def short_file(box: Box, path: Path) -> None:
    os.truncate(files(make(box, path)) / "encoder.onnx", 1000)


def missing_file(box: Box, path: Path) -> None:
    (files(make(box, path)) / "golden.safetensors").unlink()


def short_metadata(box: Box, path: Path) -> None:
    (targets,) = make(box, path).glob("bundles/*/targets.json")
    os.truncate(targets, targets.stat().st_size // 2)


def swapped(box: Box, path: Path) -> None:
    folder = files(make(box, path))
    (folder / "encoder.onnx").write_bytes(bytes((folder / "encoder.onnx").stat().st_size))


def longer(box: Box, path: Path) -> None:
    with (files(make(box, path)) / "encoder.onnx").open("ab") as stream:
        stream.write(b"more")


def extra_file(box: Box, path: Path) -> None:
    (files(make(box, path)) / "autorun.inf").write_bytes(b"[autorun]")


def linked_file(box: Box, path: Path) -> None:
    encoder = files(make(box, path)) / "encoder.onnx"
    encoder.rename(path / "elsewhere")
    encoder.symlink_to(path / "elsewhere")


def linked_folder(box: Box, path: Path) -> None:
    folder = files(make(box, path))
    folder.rename(path / "elsewhere")
    folder.symlink_to(path / "elsewhere")


def pipe(box: Box, path: Path) -> None:
    os.mkfifo(files(make(box, path)) / "autorun.inf")


def ten_thousand(box: Box, path: Path) -> None:
    folder = files(make(box, path))
    for number in range(10_000):
        (folder / str(number)).touch()


def nested(box: Box, path: Path) -> None:
    (files(make(box, path)) / "a" / "b").mkdir(parents=True)


def no_index(box: Box, path: Path) -> None:
    (make(box, path) / "snapshot.json").unlink()


MATRIX: list[tuple[str, str, Attack]] = [
    ("wrong key", "update.wrong-key", wrong_key),
    ("changed after signing", "update.wrong-key", changed_after_signing),
    ("one key of three", "update.too-few-signatures", lambda b, p: make(b, p, signers=b.organisation.release_keys[:1])),
    ("one key twice", "update.metadata", lambda b, p: make(b, p, signers=[b.organisation.release_keys[0]] * 2)),
    ("roots of somebody else", "update.root-chain", foreign_root),
    ("replayed older stick", "update.replayed", lambda b, p: make(b, p, version=1)),
    ("replayed older version", "update.replayed", mixed_old_bundle),
    ("two sticks put together", "update.metadata", unlisted),
    ("same version", "update.not-newer", lambda b, p: make(b, p, version=2, snapshot_version=9)),
    ("lower epoch", "update.epoch", lambda b, p: make(b, p, epoch=1)),
    ("revoked", "update.revoked", lambda b, p: make(b, p, **CALLED_BACK)),
    ("truncated file", "update.truncated", short_file),
    ("missing file", "update.truncated", missing_file),
    ("truncated description", "update.truncated", short_metadata),
    ("swapped file", "update.file-changed", swapped),
    ("longer file", "update.file-changed", longer),
    ("extra file", "update.extra-file", extra_file),
    ("linked file", "update.symlink", linked_file),
    ("linked folder", "update.symlink", linked_folder),
    ("path upwards", "update.path", traversal("../../../../etc/cron.d/x")),
    ("absolute path", "update.path", traversal("/etc/cron.d/x")),
    ("the slot's own file", "update.path", traversal("targets.json")),
    ("a pipe", "update.path", pipe),
    ("signed size bomb", "update.too-large", size_bomb),
    ("size bomb in a file", "update.too-large", sparse_file),
    ("size bomb in the description", "update.too-large", metadata_bomb),
    ("10,000 files", "update.too-many-files", ten_thousand),
    ("folders in folders", "update.too-deep", nested),
    ("other board", "update.other-board", lambda b, p: make(b, p, boards=("jetson-orin-nano",))),
    ("newer box needed", "update.needs-newer-box", lambda b, p: make(b, p, needs="99.0")),
    ("wrong schema", "update.schema", other_schema),
    ("a field too many", "update.metadata", extra_field),
    ("no index", "update.no-update", no_index),
    ("not a stick of ours", "update.no-update", lambda b, p: p.mkdir()),
]


@pytest.mark.parametrize(("code", "attack"), [line[1:] for line in MATRIX], ids=[line[0] for line in MATRIX])
@pytest.mark.requirement("UPD-02")
def test_the_attack_is_refused_and_told_and_changes_nothing(
    box: Box, tmp_path: Path, code: str, attack: Attack
) -> None:
    attack(box, tmp_path / "stick")
    before, slots_before = box.state, sorted((box.board.data_dir / "slots").rglob("*"))
    result = box.install(tmp_path / "stick")
    assert result.outcome.code == code
    assert result.outcome.message == OUTCOMES[code].sentence
    newest = box.store.events()[0]
    assert newest.code == code
    assert newest.message.startswith(result.outcome.message)
    assert box.state == dataclasses.replace(before, last=result.outcome)
    slot, _, passed_over = box.slots.open_best()
    assert (slot, passed_over) == (before.active, ())
    assert sorted((box.board.data_dir / "slots").rglob("*")) == slots_before
    assert result.receipt is not None


def test_each_code_of_the_matrix_has_its_own_sentence() -> None:
    codes = {code for _, code, _ in MATRIX}
    assert len({OUTCOMES[code].sentence for code in codes}) == len(codes) == 20


def test_the_same_stick_without_an_attack_is_taken(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "build", lambda bundle, board: ("tflite",))
    monkeypatch.setattr(steps, "self_test", lambda bundle, board, backends, budget: TESTED)
    make(box, tmp_path / "stick")
    assert box.install(tmp_path / "stick").outcome.code == "update.installed"


PROGRAM = """
import dataclasses, sys, time
from pathlib import Path
from edge.board import load_board
from edge.care.update.install import install
from edge.store import open_store
from edge.trust import root
data_dir, root_file, stick = map(Path, sys.argv[1:])
root.FACTORY_ROOT = root_file
board = dataclasses.replace(load_board(Path("board_configs/sim.toml")), data_dir=data_dir)
print(time.localtime().tm_year, install(board, open_store(data_dir), stick).outcome.code)
"""


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("date", ["1970-01-02 00:00:00", "2090-06-01 12:00:00"])
@pytest.mark.requirement("KEEP-06")
def test_no_clock_keeps_an_honest_update_out(box: Box, tmp_path: Path, date: str) -> None:
    make(box, tmp_path / "stick")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": f"@{date}",
        "PYTHONPATH": str(ROOT),
    }
    paths = (box.board.data_dir, box.organisation.root_file, tmp_path / "stick")
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [date[:4], "update.installed"], done.stderr
    assert box.slots.open_best()[0] == box.state.active
    assert box.state.versions == {ID: 3}
