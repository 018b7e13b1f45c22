"""The matrix finds an untested requirement, an unknown mark and a test that only skipped."""

from __future__ import annotations

import pytest

from tools.traceability.matrix import CATEGORIES, build, marks_of, parse_requirements, to_markdown

EVERY = ", ".join(CATEGORIES)
DOCUMENT = f"| RCV-01 | keeps | lost | {EVERY} |\n| RCV-02 | takes | refused | safety |\n"
MARKED = """
import pytest
pytestmark = [pytest.mark.slow, pytest.mark.requirement("RCV-01")]

@pytest.mark.parametrize("n", [1])
@pytest.mark.requirement("RCV-02", "RCV-01")
def test_two(n): ...

class TestMore:
    def test_one(self): ...

def no_test(): ...
"""


def test_marks_of_functions_and_files() -> None:
    assert sorted(marks_of(MARKED, "t.py")) == [
        ("RCV-01", "t.py::test_one"),
        ("RCV-01", "t.py::test_two"),
        ("RCV-01", "t.py::test_two"),
        ("RCV-02", "t.py::test_two"),
    ]


def test_a_whole_matrix_has_no_faults() -> None:
    matrix = build(DOCUMENT, {"t.py": MARKED}, {"t.py::test_two": "passed"})
    assert matrix.faults == []
    assert "| RCV-02 | takes | refused | safety | `t.py::test_two` passed |" in to_markdown(matrix)


@pytest.mark.parametrize(
    ("document", "sources", "results", "fault"),
    [
        (DOCUMENT, {}, None, "RCV-01 has no test"),
        (DOCUMENT, {"t.py": MARKED + '\n@pytest.mark.requirement("X-09")\ndef test_x(): ...'}, None, "X-09"),
        (DOCUMENT, {"t.py": MARKED}, {"t.py::test_two": "skipped"}, "no test of RCV-02 passed in this run"),
        (DOCUMENT, {"t.py": MARKED}, {"t.py::test_two": "failed"}, "no test of RCV-02 passed in this run"),
        (DOCUMENT + "| RCV-02 | again | x | safety |\n", {"t.py": MARKED}, None, "RCV-02 is there twice"),
        (DOCUMENT.replace("events", "safety"), {"t.py": MARKED}, None, "no requirement is about events"),
        (DOCUMENT.replace("| safety", "| safe"), {"t.py": MARKED}, None, "'safe' is no category"),
    ],
)
def test_what_is_wrong_is_said(document: str, sources: dict, results: dict | None, fault: str) -> None:
    faults = build(document, sources, results).faults
    assert any(fault in one for one in faults), faults


def test_the_document_itself_is_well_formed(root) -> None:
    requirements, faults = parse_requirements((root / "docs" / "requirements.md").read_text())
    assert faults == []
    assert len(requirements) > 40
