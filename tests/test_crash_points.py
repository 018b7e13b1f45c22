"""The crash enumeration: its recorder misses nothing, its model is strict, wrong writers are caught; then our code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import apsw
import pytest

from edge import durable
from edge.intake import filing
from tests import crash_scenarios
from tests.crash_box import check, recover
from tests.crash_scenarios import SCENARIOS
from tools.crash.disk import Disk
from tools.crash.explore import RecorderGapError, Scenario, Search, explore, record
from tools.crash.trace import Kind, Mark, Recording, mark, read_trace

HERE = "tests.test_crash_points"
OLD, NEW = b"old " * 300, b"new " * 400


def everything_child(root: Path) -> None:
    """Every way to change a file that we know of."""
    os.mkdir(root / "a")  # noqa: PTH102  # the call itself is what is recorded
    handle = os.open(root / "a" / "x", os.O_RDWR | os.O_CREAT)
    os.write(handle, b"one")
    os.writev(handle, [b"two", b"", b"three"])
    os.pwrite(handle, b"TWO", 3)
    os.pwritev(handle, [b"!", b"?"], 40)
    again = os.dup(handle)
    os.write(again, b"through another descriptor")
    os.ftruncate(handle, 60)
    os.posix_fallocate(handle, 0, 5000)
    subprocess.run([sys.executable, "-c", f"import os; os.write({handle}, b'child')"], check=True, pass_fds=[handle])
    os.fsync(handle)
    folder = os.open(root / "a", os.O_RDONLY)
    inner = os.open("y", os.O_WRONLY | os.O_CREAT | os.O_APPEND, dir_fd=folder)
    for _ in range(3):
        os.write(inner, b"appended")
    sent = os.open("sent", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.sendfile(sent, handle, 0, 10)
    os.copy_file_range(handle, sent, 10, 0, 20)
    os.rename("y", "z", src_dir_fd=folder, dst_dir_fd=folder)
    os.link(root / "a" / "z", root / "linked")
    (root / "symbolic").symlink_to("a/z")
    with (root / "buffered").open("w") as stream:
        stream.write("text\n" * 3000)
    (root / "buffered").write_bytes(b"shorter")
    os.truncate(root / "buffered", 3)
    shutil.copyfile(root / "a" / "x", root / "copy")
    shutil.copytree(root / "a", root / "b")
    (root / "b" / "x").replace(root / "a" / "x")
    (root / "a").rename(root / "moved")
    os.write(handle, b"to a file whose name is gone")
    shutil.rmtree(root / "b")
    threads = [threading.Thread(target=_many, args=(root / f"thread-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for open_one in (handle, again, folder, inner, sent):
        os.close(open_one)


def _many(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        for number in range(50):
            stream.write(b"%d" % number)
            os.fsync(stream.fileno())


def mapped_child(root: Path) -> None:
    """What cannot be followed."""
    import mmap

    (root / "x").write_bytes(bytes(4096))
    with (root / "x").open("r+b") as stream, mmap.mmap(stream.fileno(), 4096) as view:
        view[:3] = b"abc"


def _scenario(function: str, recover: Callable[[Path], object] = lambda _: None, **more: object) -> Scenario:
    def record_it(recording: Recording) -> None:
        recording.function(f"{HERE}:{function}")

    return Scenario(function, record_it, recover, more.pop("check", lambda *_: []), **more)  # type: ignore[arg-type]


def test_the_recorder_misses_nothing(tmp_path: Path) -> None:
    disk, calls = record(_scenario("everything_child"), tmp_path)  # replays them and compares
    assert {call.kind for call in calls} >= set(Kind) - {Kind.SYNC_ALL, Kind.MARK, Kind.MAPPED}
    assert len({call.pid for call in calls}) == 2
    for call in calls:
        disk.replay(call)
    left = {path.split("/")[0] for path in disk.tree({effect.number for effect in disk.pending})}
    assert left == {"buffered", "copy", "linked", "moved", "symbolic", *(f"thread-{number}" for number in range(4))}


def test_what_the_recorder_cannot_follow_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a shared mapping"):
        record(_scenario("mapped_child"), tmp_path)


def test_a_gap_in_the_trace_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Recording.calls
    monkeypatch.setattr(Recording, "calls", lambda self: whole(self)[:-9])
    with pytest.raises(RecorderGapError, match="thread"):
        record(_scenario("everything_child"), tmp_path)


# --- the model ---


def steps_child(root: Path, *steps: str) -> None:
    """Run statements one after another; `f` is an open file."""
    names: dict[str, object] = {"os": os, "root": root, "folder": os.open(root, os.O_RDONLY)}
    for step in steps:
        exec(step, names)


def _left(tmp_path: Path, steps: Sequence[str], **files: bytes) -> set[tuple[tuple[str, bytes], ...]]:
    """Every state that a crash at the end of `steps` may leave: names with contents."""

    def setup(root: Path) -> None:
        (root / "sub").mkdir()
        for name, content in files.items():
            (root / name).write_bytes(content)

    place = f"{HERE}:steps_child"
    scenario = Scenario(
        "steps", lambda recording: recording.function(place, *steps), lambda _: None, lambda *_: [], setup
    )
    disk, calls = record(scenario, tmp_path)
    for call in calls:
        disk.replay(call)
    numbers = [effect.number for effect in disk.pending]
    left = set()
    for mask in range(2 ** len(numbers)):
        kept = [number for bit, number in enumerate(numbers) if mask >> bit & 1]
        tree = disk.tree(kept)
        left.add(tuple((path, entry.content()) for path, entry in tree.items() if entry.kind == "file"))
    return left


CREATE = "f = os.open(root / 'a', os.O_RDWR | os.O_CREAT)"
WRITE = "os.write(f, b'new')"
SYNC, SYNC_FOLDER = "os.fsync(f)", "os.fsync(folder)"
A_HOLE, A_LONG = (("a", b"\0\0\0\0\0!"),), (("a", b"new\0\0!"),)
A_NEW, A_EMPTY, NOTHING = (("a", b"new"),), (("a", b""),), ()


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ([CREATE, WRITE], {NOTHING, A_EMPTY, A_NEW}),
        ([CREATE, WRITE, SYNC], {NOTHING, A_NEW}),
        ([CREATE, WRITE, SYNC_FOLDER], {A_EMPTY, A_NEW}),
        ([CREATE, WRITE, SYNC, SYNC_FOLDER], {A_NEW}),
        ([CREATE, WRITE, "os.pwrite(f, b'!', 5)", SYNC_FOLDER], {A_EMPTY, A_NEW, A_HOLE, A_LONG}),
        ([CREATE, WRITE, SYNC, SYNC_FOLDER, "os.ftruncate(f, 1)"], {A_NEW, (("a", b"n"),)}),
    ],
)  # fmt: skip
def test_only_what_was_synced_is_sure(
    tmp_path: Path, steps: Sequence[str], left: set[tuple[tuple[str, bytes], ...]]
) -> None:
    assert _left(tmp_path, steps) == left


def test_a_rename_is_atomic(tmp_path: Path) -> None:
    before, after = (("a", b"A"), ("b", b"B")), (("b", b"A"),)
    assert _left(tmp_path, ["os.rename(root / 'a', root / 'b')"], a=b"A", b=b"B") == {before, after}


@pytest.mark.parametrize(
    ("sync", "left"),
    [
        ("pass", {(("a", b"A"),), (("a", b"A"), ("sub/a", b"A")), (("sub/a", b"A"),)}),
        ("os.fsync(os.open(root / 'sub', os.O_RDONLY))", {(("a", b"A"), ("sub/a", b"A")), (("sub/a", b"A"),)}),
        (SYNC_FOLDER, {(("sub/a", b"A"),)}),
    ],
)
def test_a_move_never_loses_both_names(tmp_path: Path, sync: str, left: set[tuple[tuple[str, bytes], ...]]) -> None:
    assert _left(tmp_path, ["os.rename(root / 'a', root / 'sub' / 'a')", sync], a=b"A") == left


# --- wrong writers ---


def _old(root: Path) -> None:
    (root / "value").write_bytes(OLD)


def _write_new(path: Path, *, sync: bool) -> None:
    with path.open("wb") as stream:
        stream.write(NEW)
        stream.flush()
        if sync:
            os.fsync(stream.fileno())


def right_child(root: Path) -> None:
    _write_new(root / "temporary", sync=True)
    (root / "temporary").replace(root / "value")
    durable.fsync_directory(root)
    mark("written")


def no_folder_sync_child(root: Path) -> None:
    _write_new(root / "temporary", sync=True)
    (root / "temporary").replace(root / "value")
    mark("written")


def rename_before_sync_child(root: Path) -> None:
    _write_new(root / "temporary", sync=False)
    (root / "temporary").replace(root / "value")
    durable.fsync_directory(root)
    mark("written")


def in_place_child(root: Path) -> None:
    _write_new(root / "value", sync=True)
    mark("written")


def acknowledged_too_soon_child(root: Path) -> None:
    mark("written")
    right_child(root)


def _value(root: Path) -> bytes:
    return (root / "value").read_bytes()


def _value_is_whole(value: bytes, marks: Sequence[Mark]) -> list[str]:
    if value not in (OLD, NEW):
        return ["half a value"]
    return ["the new value was lost"] * (bool(marks) and value == OLD)


@pytest.mark.parametrize(
    ("child", "wrong"),
    [
        ("right_child", set()),
        ("no_folder_sync_child", {"the new value was lost"}),
        ("rename_before_sync_child", {"half a value"}),
        ("in_place_child", {"half a value"}),
        ("acknowledged_too_soon_child", {"the new value was lost"}),
    ],
)
def test_wrong_writers_are_caught(child: str, wrong: set[str]) -> None:
    outcome = explore(_scenario(child, _value, check=_value_is_whole, setup=_old), Search())
    assert {problem.what for problem in outcome.problems} == wrong
    assert outcome.checked == outcome.distinct


# --- our own code, broken on purpose ---


def unsynced_folders_child(root: Path) -> None:
    """Filing without the last step."""
    with (
        patch.object(durable, "fsync_directory", lambda path: None),
        patch.object(filing, "make_directory", lambda path: path.mkdir(parents=True, exist_ok=True)),
    ):
        crash_scenarios.filing_child(root)


def lazy_database_child(root: Path) -> None:
    """Filing with a database that commits without waiting for the disk."""

    class Lazy(apsw.Connection):
        def pragma(self, name, *values, **more):
            return super().pragma(name, *(("normal",) if name == "synchronous" else values), **more)

    with patch.object(apsw, "Connection", Lazy):
        crash_scenarios.filing_child(root)


@pytest.mark.parametrize("child", ["unsynced_folders_child", "lazy_database_child"])
def test_our_own_code_broken_is_caught(child: str) -> None:
    outcome = explore(_scenario(child, recover, check=check), Search(limit=250))
    assert "an acknowledged object is not there" in {problem.what for problem in outcome.problems}


# --- our own code ---


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_promise_is_kept(scenario: Scenario) -> None:
    outcome = explore(scenario, Search())
    assert outcome.problems == []
    assert outcome.checked == min(outcome.distinct, scenario.usual)


def test_thousands_of_states() -> None:
    assert sum(scenario.usual for scenario in SCENARIOS) >= 4000


def test_bad_folders_are_kept(tmp_path: Path) -> None:
    scenario = _scenario("in_place_child", _value, check=_value_is_whole, setup=_old)
    outcome = explore(scenario, Search(keep=tmp_path))
    assert len(list(tmp_path.iterdir())) == outcome.problem_states > 0


def test_a_trace_cut_by_a_kill_ends_there(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    recording = Recording(tmp_path / "root", tmp_path / "trace")
    assert recording.killed(f"{HERE}:right_child", Kind.RENAME, 1)
    calls = recording.calls()
    assert calls[-1].kind is Kind.RENAME
    content = recording.trace.read_bytes()
    assert len(read_trace(content[:-1])) == len(calls) - 1
    with pytest.raises(ValueError, match="expected a record"):
        read_trace(b"\0" * len(content))


def test_ext4_order_is_the_weaker_one() -> None:
    """A rename without a sync of its folder is safe there once any other sync came after it."""
    scenario = _scenario("rename_then_sync_child", _value, check=_value_is_whole, setup=_old)
    assert explore(scenario, Search()).problems
    assert not explore(scenario, Search(ordered_names=True)).problems


def rename_then_sync_child(root: Path) -> None:
    _write_new(root / "temporary", sync=True)
    (root / "temporary").replace(root / "value")
    _write_new(root / "other", sync=True)
    mark("written")


def test_the_disk_starts_with_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("folder")
    disk = Disk(tmp_path)
    kinds = {path: entry.kind for path, entry in disk.tree([]).items()}
    assert kinds == {"folder": "folder", "folder/file": "file", "link": "link"}
