"""`radbox update`: what a person at a terminal reads, and what a machine gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.care.update import install as steps
from edge.care.update.command import main
from edge.care.update.words import OUTCOMES
from edge.slots import good_case
from tests.test_install import TESTED
from tests.update_box import BUNDLE, ID, ROOT, VERSION, Box, new_organisation, open_box

DOCS = ROOT / "docs" / "updates.md"


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """A new box on which models are not loaded, only judged."""
    monkeypatch.setattr(steps, "build", lambda bundle, board: ("tflite",))
    monkeypatch.setattr(steps, "self_test", lambda bundle, board, backends, budget: TESTED)
    monkeypatch.setattr(steps, "compare", lambda board, store, bundle, limit: (0, 0))
    with open_box(tmp_path / "data", new_organisation(tmp_path / "keys")) as box:
        yield box


@pytest.fixture
def stick(box: Box, tmp_path: Path) -> Path:
    """A stick with version 1."""
    return box.organisation.stick(tmp_path / "stick", BUNDLE, 1, id=ID, label="0.2.0").parent


def test_the_way_of_an_update(box: Box, stick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(box.board, "list", None, False) == 0
    assert capsys.readouterr().out == f"in use:    {ID} {VERSION} (factory)\n"
    assert main(box.board, "verify", stick, False) == 0
    assert "every byte is as it was signed" in capsys.readouterr().out
    assert main(box.board, "install", stick, False) == 0
    assert capsys.readouterr().out.startswith("A new model is in use, on probation. [update.installed]\n")
    assert [path.suffix for path in (stick / "EDGE-UPDATE" / "outbox").iterdir()] == [".json"]
    assert main(box.board, "list", None, False) == 0
    listed = capsys.readouterr().out
    assert f"in use:    {ID} 0.2.0 (" in listed
    assert "on probation: 0 of 20 studies read well" in listed
    assert f"before:    {ID} {VERSION} (factory)  (radbox update rollback)" in listed
    assert main(box.board, "rollback", None, False) == 0
    assert "because a person asked for it. [update.rolled-back-person]" in capsys.readouterr().out
    assert main(box.board, "list", None, False) == 0
    assert f"waits:     {ID} 0.2.0 (" in capsys.readouterr().out  # it had not passed its probation
    assert main(box.board, "confirm", None, False) == 0
    assert box.state.trial is not None


def test_json_for_machines(box: Box, stick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(box.board, "verify", stick, True) == 0
    assert json.loads(capsys.readouterr().out)["offer"]["label"] == "0.2.0"
    assert main(box.board, "install", stick, True) == 0
    installed = json.loads(capsys.readouterr().out)
    assert (installed["code"], installed["receipt_trouble"]) == ("update.installed", "")
    assert (stick / "EDGE-UPDATE" / "outbox" / installed["receipt"]).is_file()
    assert main(box.board, "list", None, True) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["models"][listed["state"]["active"]] == f"{ID} 0.2.0"
    box.slots.change(lambda state: good_case(state, 1))
    assert main(box.board, "rollback", None, True) == 0
    assert json.loads(capsys.readouterr().out)["code"] == "update.rolled-back-person"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_refusal_is_said_with_what_to_do(
    box: Box, tmp_path: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words = OUTCOMES["update.no-update"]
    for action in ("verify", "install"):
        assert main(box.board, action, tmp_path, as_json) == 1
        said = capsys.readouterr().out
        assert words.sentence in said
        assert as_json or words.advice in said
    assert "receipt did not get onto the stick" in said or '"receipt_trouble": "The receipt did not' in said
    assert main(box.board, "confirm", None, as_json) == 1
    assert main(box.board, "rollback", None, as_json) == 1


@pytest.mark.parametrize(("action", "path"), [("verify", None), ("install", None), ("list", "x"), ("confirm", "x")])
def test_wrong_use(box: Box, action: str, path: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(box.board, action, Path(path) if path else None, False) == 2
    assert "expected" in capsys.readouterr().err


def test_list_says_that_the_state_is_damaged(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    (box.board.data_dir / "update").mkdir()
    (box.board.data_dir / "update" / "state.json").write_bytes(b"{")
    assert main(box.board, "list", None, False) == 1
    assert "[update.state-damaged]" in capsys.readouterr().out


def test_the_table_of_the_manual_is_what_the_box_says() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `update.")]
    expected = [f"| `{code}` | {words.sentence} | {words.advice} |" for code, words in OUTCOMES.items()]
    assert rows == expected
