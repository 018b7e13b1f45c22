"""`radbox read` as a person runs it: files and folders in, one JSON object a study and line out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.read import find_studies
from edge.simulate.objects import phantom_dataset, save_file
from edge.simulate.phantom import PhantomOptions, make_other, make_phantom


def _read(*paths: Path, root: Path, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """The lines of `radbox read --json` and what it said on stderr."""
    command = [sys.executable, "-m", "edge", "read", "--json", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=110, check=False)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def reference(shared_data: Path, root: Path) -> dict[str, dict[str, Any]]:
    """What is made of every DICOM file of the reference data, by file name; files of one study share their line."""
    lines, _ = _read(shared_data / "dicom", root=root)
    return {Path(path).name: line for line in lines for path in line["paths"]}


def test_every_file_of_the_folder_has_its_line(reference: dict[str, dict[str, Any]], shared_data: Path) -> None:
    assert set(reference) == {p.name for p in (shared_data / "dicom").glob("*.dcm")}
    for line in reference.values():
        assert set(line) == {"path", "paths", "status", "refusal", "report", "scores"}
        assert line["status"] in ("draft", "refused")
        assert (line["report"] is None) == (line["status"] == "refused") == bool(line["refusal"])


@pytest.mark.parametrize("name", ["RG2_J2KI.dcm", "RG2_RLE.dcm", "RG3_J2KR.dcm", "MG1_J2KI.dcm"])
def test_a_hip_a_leg_and_a_breast_are_refused(reference: dict[str, dict[str, Any]], name: str) -> None:
    assert reference[name]["refusal"]["code"] == "gate.body-part"


def test_only_the_chest_is_read(reference: dict[str, dict[str, Any]]) -> None:
    assert {name for name, line in reference.items() if line["status"] == "draft"} == {"RG1_J2KI.dcm", "RG1_JLSN.dcm"}


def test_both_forms_of_the_chest_read_the_same(shared_data: Path, root: Path) -> None:
    lines, _ = _read(*(shared_data / "dicom" / name for name in ("RG1_J2KI.dcm", "RG1_JLSN.dcm")), root=root)
    one, other = lines
    assert len(one["scores"]) == 14
    for finding, score in one["scores"].items():
        assert other["scores"][finding] == pytest.approx(score, abs=0.02)
    told = [[(s["finding"], s["side"], s["certainty"]) for s in line["report"]["statements"]] for line in lines]
    assert told[0] == told[1]


NAMED_PARTS = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName", "AnatomicRegionSequence")


def _without_body_part(name: str, shared_data: Path, folder: Path) -> Path:
    """A real object whose header no longer says what it shows: only the picture is left to judge by."""
    import pydicom

    dataset = pydicom.dcmread(shared_data / "dicom" / name)
    for keyword in NAMED_PARTS:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.Modality = "CR"
    path = folder / name
    save_file(dataset, path)
    return path


@pytest.mark.parametrize("name", ["RG2_J2KI.dcm", "RG3_J2KR.dcm", "MG1_J2KI.dcm"])
def test_the_picture_itself_is_refused(shared_data: Path, root: Path, tmp_path: Path, name: str) -> None:
    (line,), _ = _read(_without_body_part(name, shared_data, tmp_path), root=root)
    assert line["status"] == "refused"
    assert line["refusal"]["code"].startswith("gate.")


def _jpeg(path: Path, pixels: np.ndarray) -> Path:
    cv2.imwrite(str(path), np.round(pixels * 255).astype(np.uint8))
    return path


def test_pictures_are_read_or_refused(root: Path, tmp_path: Path) -> None:
    chest = _jpeg(tmp_path / "a.jpg", make_phantom(PhantomOptions(seed=11, size=512, detail="fast")).pixels)
    landscape = _jpeg(tmp_path / "b.jpg", make_other("landscape", 4, 512))
    hand = _jpeg(tmp_path / "c.png", make_other("hand", 5, 512))
    sky = np.dstack([np.full((300, 400), v, np.uint8) for v in (220, 120, 40)])
    sky[:, ::7] //= 2
    cv2.imwrite(str(tmp_path / "d.png"), sky)
    (tmp_path / "e.txt").write_text("no image")
    lines, _ = _read(tmp_path, root=root)
    assert [Path(line["path"]) for line in lines] == [chest, landscape, hand, tmp_path / "d.png"]
    assert lines[0]["status"] == "draft"
    assert "limit.picture-not-dicom" in lines[0]["report"]["limits"]
    assert [line["refusal"]["code"] for line in lines[1:]] == [
        "gate.not-a-chest-radiograph", "gate.not-a-chest-radiograph", "gate.colour",
    ]  # fmt: skip


def test_images_of_one_study_make_one_line(tmp_path: Path) -> None:
    for i in range(2):
        phantom = make_phantom(PhantomOptions(seed=i, size=256, detail="fast"))
        save_file(phantom_dataset(phantom, study_key="both"), tmp_path / f"{i}.dcm")
    (study,) = find_studies([tmp_path])
    assert [p.name for p in study.paths] == ["0.dcm", "1.dcm"]
    assert len(list(find_studies([tmp_path / "0.dcm", tmp_path / "1.dcm"]))) == 2


def test_a_missing_path_is_one_sentence(root: Path, tmp_path: Path) -> None:
    lines, said = _read(tmp_path / "nothing.dcm", root=root, code=1)
    assert lines == []
    assert "[read.no-such-path]" in said
    assert "Traceback" not in said


def test_an_empty_folder_is_one_sentence(root: Path, tmp_path: Path) -> None:
    _, said = _read(tmp_path, root=root, code=1)
    assert "[read.nothing-to-read]" in said


def test_damaged_headers_have_an_identity_or_none(shared_data: Path, tmp_path: Path) -> None:
    from edge.reading.dicom import Identity, identity

    rng = np.random.default_rng(8)
    path = tmp_path / "object"
    for name in ("MR_truncated.dcm", "nested_priv_SQ.dcm", "JLSN_RGB_ILV0.dcm", "meta_missing_tsyntax.dcm"):
        whole = np.frombuffer((shared_data / "dicom" / name).read_bytes()[:4000], np.uint8)
        for _ in range(150):
            damaged = whole.copy()
            damaged[rng.integers(0, len(damaged), 6)] = rng.integers(0, 256, 6)
            path.write_bytes(damaged[: rng.integers(1, len(damaged) + 1)].tobytes())
            assert isinstance(identity(path), Identity)
