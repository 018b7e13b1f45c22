"""`radbox selftest`: passes on this machine, and says what fails where something does."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from edge.board import Board, load_board
from edge.care import selftest
from tests.update_box import BUNDLE, ROOT


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """The simulated board with a data folder and the model of the checkout."""
    whole = load_board(ROOT / "board_configs" / "sim.toml")
    worker = dataclasses.replace(whole.worker, bundle=BUNDLE, backends=("tflite",))
    return dataclasses.replace(whole, data_dir=tmp_path / "data", worker=worker)


@pytest.mark.requirement("INST-01")
def test_it_passes_here_and_leaves_nothing(board: Board, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert selftest.main(board, True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is True
    assert [step["name"] for step in told["steps"]] == ["kernels", "bundle", "tflite", "storage", "study"]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_fails_the_steps_that_need_it(
    board: Board, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle)
    with (bundle / "encoder.tflite").open("r+b") as file:
        file.write(b"damage")
    damaged = dataclasses.replace(board, worker=dataclasses.replace(board.worker, bundle=bundle))
    assert selftest.main(damaged, True) == 1
    steps = {step["name"]: step for step in json.loads(capsys.readouterr().out)["steps"]}
    assert {name for name, step in steps.items() if step["passed"]} == {"kernels", "storage"}
    assert steps["bundle"]["code"] == "bundle.hash"


@pytest.mark.requirement("INST-01")
def test_a_backend_may_fail_while_another_passes(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    both = dataclasses.replace(board, worker=dataclasses.replace(board.worker, backends=("no-such", "tflite")))
    assert selftest.main(both, False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["warn", "no-such"], ["ok", "tflite"]]
    none = dataclasses.replace(board, worker=dataclasses.replace(board.worker, backends=("no-such",)))
    assert selftest.main(none, False) == 1


def test_kernels_that_compute_wrongly_are_found(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "KERNEL_ERROR", -1.0)
    step = next(selftest.run(board))
    assert (step.name, step.passed, step.code) == ("kernels", False, "selftest.failed")
