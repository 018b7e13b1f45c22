"""Which board file the Debian package starts with: its own script, run over folders of the test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge.board_files import shipped

DEFAULT = "# what the architecture starts with\n"


@pytest.fixture
def machine(tmp_path: Path, root: Path) -> Path:
    """The part of postinst that chooses, as `choose` in a folder that stands for /."""
    script = (root / "tools" / "deb" / "debian" / "postinst").read_text()
    (part,) = re.findall(r"^board=.*?^fi\n", script, re.MULTILINE | re.DOTALL)
    for place in ("/etc/", "/run/", "/usr/share/", "/opt/"):
        part = part.replace(place, f"{tmp_path}{place}")
    (tmp_path / "choose").write_text(f"set -e\n{part}")
    for folder in ("etc/radbox", "usr/share/radbox/boards", "opt/radbox/bin", "run/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/share/radbox/boards/default.toml").write_text(DEFAULT)
    command(tmp_path, f'cd {root} && exec {sys.executable} -m edge "$@"')
    return tmp_path


def command(machine: Path, line: str) -> None:
    path = machine / "opt/radbox/bin/radbox"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def chosen(machine: Path) -> str:
    subprocess.run(["sh", str(machine / "choose")], check=True, timeout=60, capture_output=True)
    board = machine / "etc/radbox/board.toml"
    assert board.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in board.parent.iterdir()] == ["board.toml"]
    return board.read_text()


def test_a_running_machine_gets_the_file_that_fits_it(machine: Path) -> None:
    command(
        machine,
        f'[ "$*" = "board probe --write {machine}/etc/radbox/board.toml.new" ] && cp {shipped()["rk3588"]} "$4"',
    )
    assert chosen(machine) == shipped()["rk3588"].read_text()


def test_the_real_command_does_it(machine: Path) -> None:
    assert chosen(machine) in {DEFAULT, *(path.read_text() for path in shipped().values())}


def test_a_machine_that_no_file_fits_gets_the_default(machine: Path) -> None:
    command(machine, "exit 1")
    assert chosen(machine) == DEFAULT


def test_an_image_in_the_making_gets_the_default(machine: Path) -> None:
    (machine / "run/systemd/system").rmdir()
    assert chosen(machine) == DEFAULT


def test_what_a_cut_left_behind_goes_and_a_board_file_stays(machine: Path) -> None:
    command(machine, "exit 1")
    (machine / "etc/radbox/board.toml.new").write_text("half a fi")
    assert chosen(machine) == DEFAULT
    (machine / "etc/radbox/board.toml").write_text("name = 'mine'")
    assert chosen(machine) == "name = 'mine'"
