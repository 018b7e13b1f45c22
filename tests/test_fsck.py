"""`radbox fsck`: what it finds, what it puts right, and that a repair may be cut anywhere."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import apsw
import pytest

from edge import durable, durable_names
from edge.__main__ import main
from edge.care.fsck import check, rebuild_damaged
from edge.care.fsck_report import WORDS, FsckReport
from edge.durable import DurableFile, make_directory, write_file
from edge.errors import StoreError
from edge.store import StudyDetail, object_path, open_store, quarantine_path
from edge.store_paths import DAMAGED, DATABASE, INCOMING, KEPT_ASIDE
from edge.store_schema import VERSION
from tests.care_box import files_of, object_bytes, put_draft, put_expired, put_object, read_next, sign
from tests.test_retention import put_quarantined
from tools.crash.box import database_faults


def codes(report: FsckReport) -> dict[str, int]:
    return {finding.code: finding.count for finding in report.findings}


def repaired(data_dir: Path, key: bytes | None = None) -> FsckReport:
    """Look, repair, look again: the second look finds nothing."""
    before = check(data_dir, key, False)
    files = files_of(data_dir)
    assert codes(check(data_dir, key, False)) == codes(before), "looking changes nothing"
    assert files_of(data_dir) == files
    report = check(data_dir, key, True)
    assert {code: count for code, count in codes(report).items() if code in codes(before)} == codes(before)
    assert all(finding.repaired for finding in report.findings), report.in_words()
    assert codes(check(data_dir, key, False)) == {}
    return report


@contextmanager
def studies(data_dir: Path, key: bytes | None = None) -> Iterator[dict[str, StudyDetail]]:
    """Every study by its UID."""
    with closing(open_store(data_dir, key=key)) as store:
        details = [store.study(row.study_key) for row in store.studies(1000)]
        yield {detail.facts.study_instance_uid: detail for detail in details if detail is not None}


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A waiting study of two images, a draft, a signed and exported one, refused bytes. Services are stopped."""
    with closing(open_store(tmp_path)) as store:
        put_draft(tmp_path, store, 1)
        put_expired(tmp_path, store, 2)
        put_object(tmp_path, store, 3, study="2.25.3")
        study_key, _ = put_object(tmp_path, store, 4, study="2.25.3")
        store.complete_study(study_key)
        put_quarantined(tmp_path, store, b"no object")
        store.tick_age()
        store.add_event("a.b", "something happened", study_key)
    return tmp_path


def path_of(seed: int, **names) -> str:
    return str(object_path(hashlib.sha256(object_bytes(seed, **names)).hexdigest()))


def test_a_box_in_order_is_clean(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(box, None, False)
    assert (report.clean, report.objects, report.busy) == (True, 4, False)
    assert main(["fsck", "--data-dir", str(box)]) == 0
    assert capsys.readouterr().out == "Clean: 4 images and the database agree.\n"
    with closing(open_store(box)):
        assert check(box, None, False).busy
    assert check(box / "absent", None, True).clean
    assert not (box / "absent").exists()
    (box / "new").mkdir()
    assert check(box / "new", None, True).clean


def test_a_repair_needs_the_folder_for_itself(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(open_store(box)):
        assert main(["fsck", "--repair", "--data-dir", str(box)]) == 1
    assert "[store.in-use]" in capsys.readouterr().err


def test_a_lost_image_is_told_on_its_study(box: Path) -> None:
    (box / path_of(1)).unlink()
    for seed in (3, 4):
        (box / path_of(seed, study="2.25.3")).unlink()
    assert codes(repaired(box)) == {"fsck.object-missing": 3}
    with studies(box) as found:
        assert sorted((one.state, len(one.instances)) for one in found.values()) == [
            ("draft", 0),
            ("failed", 0),
            ("signed", 1),
        ]
        assert found["2.25.3"].code == "storage.object-lost"
    assert database_faults(box) == []
    with closing(open_store(box)) as store:
        assert store.claim_next("w") is None
        put_object(box, store, 3, study="2.25.3")  # it comes again
        store.complete_study(store.study_key("2.25.3") or 0)
        assert store.claim_next("w") is not None


@pytest.mark.parametrize("change", ["flipped", "longer", "empty"])
def test_damaged_bytes_go_to_the_quarantine(box: Path, change: str) -> None:
    path = box / path_of(3, study="2.25.3")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"flipped": bytes(content), "longer": bytes(content) + b"x", "empty": b""}[change])
    assert codes(repaired(box)) == {"fsck.object-damaged": 1}
    with studies(box) as found:
        assert (found["2.25.3"].state, len(found["2.25.3"].instances)) == ("queued", 1)
    with closing(open_store(box)) as store:
        assert store.quarantine()[0].code == "storage.object-damaged"
        assert store.events()[0].study_key == store.study_key("2.25.3")


def test_sizes_alone_are_looked_at_when_bytes_are_not_read(box: Path) -> None:
    path = box / path_of(3, study="2.25.3")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert check(box, None, False, hashes=False).clean
    assert codes(check(box, None, False)) == {"fsck.object-damaged": 1}


def test_files_without_a_row_are_taken_in(box: Path) -> None:
    for content in (object_bytes(7), object_bytes(8, study="2.25.3"), b"no DICOM file, but whole"):
        path = box / object_path(hashlib.sha256(content).hexdigest())
        make_directory(path.parent)
        write_file(path, content)
    wrong = box / object_path("ab" * 32)
    make_directory(wrong.parent)
    write_file(wrong, object_bytes(9))
    report = check(box, None, True)
    assert codes(report) == {"fsck.object-unknown": 4}
    assert check(box, None, False).clean
    with studies(box) as found:
        assert len(found) == 4
        assert (found["2.25.3"].state, len(found["2.25.3"].instances)) == ("queued", 3)
    with closing(open_store(box)) as store:
        assert {row.code for row in store.quarantine()} == {"dicom.cut", "dicom.malformed", "storage.object-damaged"}
        read_next(box, store)


def test_left_overs_are_swept(box: Path) -> None:
    make_directory(box / INCOMING)
    left = [DurableFile(folder) for folder in (box, box / INCOMING, box / "quarantine", box / "rendered/1/1")]
    make_directory(box / "rendered/7/1")
    write_file(box / "rendered/7/1/image.png", b"of a worker that died")
    make_directory(box / "slots/.stage-abc")
    make_directory(box / "slots" / ("ab" * 32))
    write_file(box / quarantine_path("ab" * 32), b"bytes")
    with closing(open_store(box)) as store:
        for removable in store.removable(0, 0):
            store.forget_study(removable.study_key)
        assert codes(check(box, None, False)) == {}, "beside services none of this counts"
    assert codes(repaired(box)) == {
        "fsck.removal-pending": 2,
        "fsck.temporary-file": 4,
        "fsck.rendering-unknown": 1,
        "fsck.quarantine-unknown": 1,
        "fsck.update-left": 2,
    }
    assert not any(file.path.exists() for file in left)
    for file in left:
        file.discard()
    assert not (box / "rendered" / "7").exists()
    assert list((box / "slots").iterdir()) == []


def test_slots_stay_where_it_cannot_be_told_which_are_used(box: Path) -> None:
    make_directory(box / "slots" / ("ab" * 32))
    make_directory(box / "update")
    write_file(box / "update/state.json", b"damaged")
    assert check(box, None, True).clean
    assert (box / "slots" / ("ab" * 32)).is_dir()


def test_a_draft_without_its_picture_is_read_again_and_a_signed_one_stays(box: Path) -> None:
    for number in (1, 2):
        durable_names.remove_tree(box / "rendered" / str(number))
    (box / quarantine_path(hashlib.sha256(b"no object").hexdigest())).unlink()
    assert codes(repaired(box)) == {"fsck.rendering-missing": 2, "fsck.quarantine-missing": 1}
    with studies(box) as found:
        assert sorted(one.state for one in found.values()) == ["queued", "queued", "signed"]
    assert database_faults(box) == []


def test_what_it_cannot_mend_it_only_tells(box: Path) -> None:
    (box / "spool/objects/ab").mkdir(exist_ok=True)
    (box / "spool/objects/ab/holiday.jpg").write_bytes(b"x")
    with closing(open_store(box)) as store:
        store._db.all("UPDATE signature SET report_json = 'other'")
    report = check(box, None, True)
    assert codes(report) == {"fsck.strange-file": 1, "fsck.signature-damaged": 1}
    assert not any(finding.repaired for finding in report.findings)
    assert [finding.code for finding in report.faults] == ["fsck.signature-damaged"]
    assert (box / "spool/objects/ab/holiday.jpg").exists()


# --- the database ---


def lose(box: Path) -> None:
    for path in box.glob(f"{DATABASE}*"):
        path.unlink()


def overwrite(box: Path, table: str) -> None:
    """Destroy the page that a table begins on."""
    with closing(apsw.Connection(str(box / DATABASE))) as link:
        rows = link.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        page = int(str(rows[0][0]))
    content = bytearray((box / DATABASE).read_bytes())
    content[4096 * (page - 1) : 4096 * page] = b"\xa5" * 4096
    (box / DATABASE).write_bytes(content)


@pytest.mark.requirement("KEEP-08")
def test_a_lost_database_is_made_anew_from_the_spool(box: Path) -> None:
    with studies(box) as before:
        pass
    lose(box)
    assert codes(check(box, None, False)) == {"fsck.database-missing": 1}
    assert not (box / DATABASE).exists(), "looking makes none"
    report = check(box, None, True)
    assert set(codes(report)) == {"fsck.database-missing", "fsck.rendering-unknown", "fsck.quarantine-unknown"}
    assert check(box, None, False).clean
    with studies(box) as found:
        assert {one.state for one in found.values()} == {"queued"}
        for uid, study in found.items():
            assert study.facts == before[uid].facts
            assert [row.sha256 for row in study.instances] == [row.sha256 for row in before[uid].instances]
            facts = ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "size_bytes", "path")
            for name in facts:
                assert {getattr(row, name) for row in study.instances} == {
                    getattr(row, name) for row in before[uid].instances
                }
        assert min(study.summary.study_key for study in found.values()) > 2, "names of old folders are not used again"


@pytest.mark.parametrize("table", ["study", "instance", "reading", "event", "sqlite_sequence"])
@pytest.mark.requirement("KEEP-08")
def test_a_damaged_database_keeps_what_was_signed(box: Path, table: str) -> None:
    with studies(box) as before:
        signed = next(one for one in before.values() if one.state == "signed")
    overwrite(box, table)
    damaged = (box / DATABASE).read_bytes()
    assert codes(check(box, None, False)) == {"fsck.database-damaged": 1}
    report = check(box, None, True)
    assert report.faults[0].code == "fsck.database-damaged"
    assert "signed reports taken over: 1" in report.in_words()
    assert (box / KEPT_ASIDE / "1" / DATABASE).read_bytes() == damaged
    assert check(box, None, False).clean
    assert database_faults(box) == []
    with studies(box) as found:
        assert {uid: one.facts for uid, one in found.items()} == {uid: one.facts for uid, one in before.items()}
        again = found[signed.facts.study_instance_uid]
        assert (again.state, again.summary.study_key) == ("signed", signed.summary.study_key)
        assert again.rendered == signed.rendered
        assert {one.state for one in found.values()} == {"signed", "queued"}
    with closing(open_store(box)) as store:
        assert store.signed_report(signed.summary.study_key) == f'{{"signed": {signed.summary.study_key}}}'
        assert store.removable(0, 0) == [], "what was exported is not believed of a damaged database"
        while store.claim_next("w") is not None:
            pass


def test_what_can_be_read_of_the_old_database_is_taken_over(box: Path) -> None:
    with closing(open_store(box)) as store:
        store.tick_age()
        age_s = store.age_s()
        key = store.study_key("2.25.3")
    overwrite(box, "service")
    (box / DAMAGED).touch()
    check(box, None, True)
    with closing(open_store(box)) as store:
        assert store.age_s() == pytest.approx(age_s)
        assert store.study_key("2.25.3") == key
        assert [row.message for row in store.quarantine()] == ["cut"]
        assert ("something happened", key) in [(row.message, row.study_key) for row in store.events()]
        drafts = [
            detail for row in store.studies() if (detail := store.study(row.study_key)) and detail.superseded_reports
        ]
        assert len(drafts) == 1, "the earlier draft is history"
        assert [row.calling_ae for row in drafts[0].instances] == ["CR1"]


def test_a_signed_report_that_is_not_what_was_signed_is_not_taken_over(box: Path) -> None:
    with closing(open_store(box)) as store:
        store._db.all("UPDATE signature SET report_json = 'other'")
    overwrite(box, "event")
    report = check(box, None, True)
    assert codes(report)["fsck.signature-unplaced"] == 1
    assert not report.findings[1].repaired


def test_a_whole_database_that_was_marked_is_only_unmarked(box: Path) -> None:
    (box / DAMAGED).touch()
    (box / "rebuild").mkdir()
    assert codes(repaired(box)) == {"fsck.database-marked": 1}
    assert not (box / "rebuild").exists()
    with studies(box) as found:
        assert "draft" in {one.state for one in found.values()}, "nothing was rebuilt"


def test_a_database_under_a_key_is_rebuilt_under_it(tmp_path: Path) -> None:
    key = b"k" * 32
    with closing(open_store(tmp_path, key=key)) as store:
        sign(store, put_draft(tmp_path, store, 1)[0])
        for number in range(200):
            store.add_event("a.b", "x" * 500 + str(number))
    content = bytearray((tmp_path / DATABASE).read_bytes())
    content[-8192:] = b"\xa5" * 8192
    (tmp_path / DATABASE).write_bytes(content)
    assert codes(check(tmp_path, key, False)) == {"fsck.database-damaged": 1}
    check(tmp_path, key, True)
    assert b"SQLite format 3" not in (tmp_path / DATABASE).read_bytes()
    with studies(tmp_path, key) as found:
        assert [one.state for one in found.values()] == ["signed"]


def test_another_key_or_a_newer_version_is_never_damage(box: Path) -> None:
    with closing(apsw.Connection(str(box / DATABASE))) as link:
        link.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = (box / DATABASE).read_bytes()
    assert codes(check(box, None, True)) == {"fsck.database-newer": 1}
    assert codes(check(box, b"k" * 32, True)) == {"fsck.database-locked": 1}
    for key, code in ((None, "store.newer"), (b"k" * 32, "store.key")):
        with pytest.raises(StoreError) as caught:
            rebuild_damaged(box, key, lambda: None)
        assert caught.value.code == code
    assert (box / DATABASE).read_bytes() == before
    assert not (box / KEPT_ASIDE).exists()


# --- a repair that is cut ---


class CutError(BaseException):
    """The power went."""


def cut_at(step: int) -> tuple[list[int], Callable[..., object]]:
    """Counts changes of the disk (rename, unlink, rmdir) and ends the process at the one numbered `step`."""
    count = [0]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def change(*arguments: object, **options: object) -> object:
            count[0] += 1
            if count[0] == step:
                raise CutError
            return real(*arguments, **options)

        return change

    return count, counted


def test_a_rebuild_may_be_cut_anywhere(box: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    overwrite(box, "study")
    write_file(box / f"{DATABASE}-wal", b"")  # a WAL moves with its database
    step, ended = 0, False
    while not ended:
        step += 1
        data_dir = tmp_path_factory.mktemp("cut") / "data"
        shutil.copytree(box, data_dir)
        _, counted = cut_at(step)
        with (
            patch.object(Path, "replace", counted(Path.replace)),
            patch.object(Path, "unlink", counted(Path.unlink)),
            patch.object(shutil, "rmtree", counted(shutil.rmtree)),
        ):
            try:
                rebuild_damaged(data_dir, None, lambda: None)
                ended = True
            except CutError:
                if (data_dir / DAMAGED).exists():
                    with pytest.raises(StoreError):
                        open_store(data_dir)
                else:
                    assert step == 1, "marked before anything moves"
        check(data_dir, None, True)
        assert check(data_dir, None, False).clean, step
        assert [path.name for path in (data_dir / KEPT_ASIDE).iterdir()] == ["1"], step
        with studies(data_dir) as found:
            assert sorted(one.state for one in found.values()) == ["queued", "queued", "signed"], step
        assert not (data_dir / DAMAGED).exists()
    assert step >= 5
    assert durable.TEMPORARY_PREFIX == "."


# --- words ---


def test_words_and_codes(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (box / path_of(1)).unlink()
    (box / path_of(2)).unlink()
    assert main(["fsck", "--data-dir", str(box)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("fault     2 stored images are gone from the disk. [fsck.object-missing]\n")
    assert "radbox fsck --repair" in out
    assert main(["fsck", "--json", "--repair", "--data-dir", str(box)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["clean"], document["busy"]) == (False, False)
    (finding,) = document["findings"]
    assert (finding["code"], finding["severity"], finding["count"], finding["repaired"]) == (
        "fsck.object-missing",
        "fault",
        2,
        True,
    )
    assert main(["fsck", "--data-dir", str(box)]) == 0


def test_nothing_that_is_said_holds_patient_data(box: Path) -> None:
    overwrite(box, "event")
    (box / path_of(1)).unlink()
    said = check(box, None, True).in_words()
    with closing(open_store(box)) as store:
        said += " ".join(event.message for event in store.events())
    for word in ("Seeded", "P1", "A1", "2.25"):
        assert word not in said


@pytest.mark.parametrize("code", sorted(WORDS))
def test_every_finding_has_whole_sentences(code: str) -> None:
    _, one, several, mended = WORDS[code]
    assert re.fullmatch(r"[A-Z1].*\.", one)
    assert not several or re.fullmatch(r"[A-Z{].*\.", several)
    assert not mended or re.fullmatch(r"[A-Z].*\.", mended)
