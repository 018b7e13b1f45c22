"""The shipped board files: each says every key, names its budgets, and fits the package and the box it is for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge.__main__ import main
from edge.board import load_board
from edge.board_files import board_path, shipped, summary
from edge.board_keys import ACCELERATED_BACKENDS, SECTIONS
from edge.toml import load_toml

WANTED = {
    *("sim", "raspberry-pi-5", "raspberry-pi-5-coral", "raspberry-pi-5-hailo", "jetson-orin-nano-jp6"),
    *("jetson-orin-nano-jp7", "jetson-agx-thor", "imx8mp", "rk3588", "generic-x86"),
}
ACCELERATED = {
    "raspberry-pi-5-coral": ("edgetpu",),
    "raspberry-pi-5-hailo": ("hailo",),
    "jetson-orin-nano-jp6": ("tensorrt",),
    "jetson-orin-nano-jp7": ("tensorrt",),
    "jetson-agx-thor": ("tensorrt",),
    "imx8mp": ("vx",),
    "rk3588": ("rknn", "teflon"),
}
BOXES = sorted(WANTED - {"sim"})


def test_every_board_of_the_project_is_there() -> None:
    assert set(shipped()) == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_board_file_says_every_key(name: str) -> None:
    """A board file is read by people: nothing in it is left to a default."""
    document = load_toml(shipped()[name])
    for section, keys in SECTIONS.items():
        said = document[section] if section else {key: value for key, value in document.items() if key not in SECTIONS}
        assert list(said) == list(keys), f"{name}: [{section}] in the order of board_keys.py"


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_board_file_begins_with_what_it_is_for(name: str) -> None:
    assert len(summary(shipped()[name])) > 40
    assert "README.md in this folder" in shipped()[name].read_text().partition("\nname = ")[0]


@pytest.mark.parametrize("name", BOXES)
def test_a_board_is_for_an_installed_box(name: str) -> None:
    board = load_board(shipped()[name])
    assert board.data_dir == Path("/var/lib/radbox")
    assert board.worker.bundle == Path("/opt/radbox/models/chest")
    assert (board.receive.host, board.web.host, board.hardware.kind) == ("0.0.0.0", "0.0.0.0", "linux")


@pytest.mark.parametrize("name", sorted(WANTED))
def test_accelerators_come_first_and_a_runtime_of_the_cpu_after_them(name: str) -> None:
    backends = load_board(shipped()[name]).worker.backends
    accelerated = tuple(one for one in backends if one in ACCELERATED_BACKENDS)
    assert accelerated == ACCELERATED.get(name, ())
    assert backends == (*accelerated, "tflite", "onnxruntime")


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_board_names_its_budgets_and_the_readme_where_they_come_from(name: str, root: Path) -> None:
    board = load_board(shipped()[name])
    budget = board.budget
    assert 0 < budget.report_s <= 10
    assert 256 << 20 <= budget.memory_bytes <= 2560 << 20  # MemoryMax= of the worker's unit
    assert bool(budget.power_w) == (name not in ("sim", "generic-x86"))
    readme = (root / "board_configs" / "README.md").read_text()
    (row,) = re.findall(rf"^\| `{name}` \| .*$", readme, re.MULTILINE)
    figures = [
        f"{budget.report_s:g} s",
        f"{budget.memory_bytes >> 20} MiB",
        f"{budget.power_w:g} W" if budget.power_w else "-",
    ]
    assert [cell.strip() for cell in row.split("|")[-4:-1]] == figures


@pytest.mark.parametrize("name", BOXES)
def test_heat_limits_are_cautious_and_memory_fits_the_workers_unit(name: str, root: Path) -> None:
    """A box that pauses only when the chip has slowed itself down long since would read at a crawl."""
    board = load_board(shipped()[name])
    assert board.hardware.slow_c <= 80
    assert board.hardware.pause_c <= 90
    unit = (root / "systemd" / "radbox-worker.service").read_text()
    (limit,) = re.findall(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)
    assert board.worker.decode_memory_bytes < int(limit) << 20


def test_boards_are_listed_shown_and_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["board", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in listed} == WANTED
    assert main(["board", "list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == WANTED
    assert main(["board", "show", "rk3588"]) == 0
    assert capsys.readouterr().out == shipped()["rk3588"].read_text()
    assert main(["board", "check", "rk3588"]) == 0
    assert "it says every key" in capsys.readouterr().out
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "mine"\ndata_dir = "x"\n[worker]\nbundle = "y"\n')
    assert main(["board", "check", str(mine)]) == 0
    assert "receive.host, receive.port" in capsys.readouterr().out
    mine.write_text("name = 7")
    assert main(["board", "check", str(mine)]) == 2
    assert "mine.toml: top of the file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["show"], ["list", "x"], ["show", "none"], ["check", "none.toml"]])
def test_wrong_use_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", *words]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_board_may_be_named_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert board_path("imx8mp") == shipped()["imx8mp"]
    assert board_path("imx8mp.toml") == tmp_path / "imx8mp.toml"
    assert board_path("nothing") == tmp_path / "nothing"
    (tmp_path / "imx8mp").write_text("")
    assert board_path("imx8mp") == tmp_path / "imx8mp"
