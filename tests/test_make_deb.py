"""The parts of the package: wheels, needed libraries, scripts. `tools/test_package` tries out the package itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.board import load_board
from tools.deb import tree
from tools.deb.architectures import ARCHITECTURES
from tools.deb.arm64 import normalised_error
from tools.deb.libraries import needed_packages
from tools.deb.package import FIXED_NEEDS, MAINTAINER_SCRIPTS, SCRIPTS, build, write_control
from tools.deb.wheels import _forget_missing

ROOT = tree.ROOT
needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_boards_of_the_package_are_for_an_installed_box(name: str) -> None:
    board = load_board(ROOT / "board_configs" / f"{ARCHITECTURES[name].board}.toml")
    assert board.data_dir == Path("/var/lib/radbox")
    assert board.worker.bundle == Path("/opt/radbox/models/chest")
    assert (board.receive.host, board.web.host, board.hardware.kind) == ("0.0.0.0", "0.0.0.0", "linux")


def test_platforms_are_those_of_debian_12() -> None:
    platforms = ARCHITECTURES["arm64"].platforms
    assert platforms[0] == "manylinux_2_36_aarch64"
    assert "manylinux2014_aarch64" in platforms
    assert not any(name.endswith("x86_64") for name in platforms)


def test_every_file_of_systemd_has_its_place() -> None:
    places = tree._system_files()
    assert set(places) == {path.name for path in tree.ROOT.joinpath("systemd").iterdir()}
    assert places["radbox-receive.service"] == Path("lib/systemd/system/radbox-receive.service")


@pytest.mark.requirement("INST-02")
def test_the_scripts_know_every_unit_that_starts_with_the_box() -> None:
    purged = re.search(r"units='(.*?)'", (SCRIPTS / "postrm").read_text(), re.DOTALL)
    assert purged
    enabled = {path.name for path in (ROOT / "systemd").iterdir() if "[Install]" in path.read_text()}
    assert set(purged[1].split()) == enabled


@pytest.mark.parametrize("name", MAINTAINER_SCRIPTS)
def test_maintainer_scripts_are_plain_shell(name: str) -> None:
    script = SCRIPTS / name
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert "set -e" in script.read_text()


def test_removed_files_are_struck_from_the_record(tmp_path: Path) -> None:
    record = tmp_path / "one-1.dist-info" / "RECORD"
    record.parent.mkdir()
    (tmp_path / "one.py").write_text("")
    record.write_text("one.py,sha256=abc,0\n../../bin/one,sha256=def,9\none-1.dist-info/RECORD,,\n")
    _forget_missing(record)
    assert record.read_text() == "one.py,sha256=abc,0\none-1.dist-info/RECORD,,\n"


@pytest.mark.skipif(not shutil.which("c++") or not shutil.which("readelf"), reason="needs a compiler")
def test_needed_packages_are_read_from_the_objects(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["amd64"]
    (tmp_path / "inner.c").write_text("int inner(void) { return 1; }\n")
    calls = "int inner(void); int puts(const char *); int outer(void) { return puts(0) + inner(); }"
    (tmp_path / "outer.c").write_text(calls)
    shared = ["c++", "-x", "c", "-shared", "-fPIC", "-o"]
    subprocess.run([*shared, str(tmp_path / "libinner.so"), str(tmp_path / "inner.c")], check=True)
    outer = [str(tmp_path / "libouter.so"), str(tmp_path / "outer.c"), "-x", "none", "-L", str(tmp_path), "-linner"]
    subprocess.run([*shared, *outer], check=True)
    assert "libc6" in needed_packages(tmp_path, architecture)
    (tmp_path / "libinner.so").unlink()
    with pytest.raises(SystemExit, match=r"libouter\.so needs libinner\.so"):
        needed_packages(tmp_path, architecture)


@needs_dpkg
def test_the_same_tree_gives_the_same_package(tmp_path: Path) -> None:
    found = []
    for turn in ("one", "two"):
        package = tmp_path / turn / "radbox"
        (package / "usr/bin").mkdir(parents=True)
        (package / "usr/bin/radbox").write_text("#!/bin/sh\n")
        write_control(package, ARCHITECTURES["amd64"], "1.2.3", [*FIXED_NEEDS, "libc6"])
        tree.settle(package)
        found.append(build(package, tmp_path / turn, "radbox_1.2.3_amd64", 1_700_000_000, quick=True).read_bytes())
    assert found[0] == found[1]
    show = ["dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}\n${Depends}\n"]
    shown = subprocess.run(
        [*show, str(tmp_path / "one/radbox_1.2.3_amd64.deb")], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("radbox 1.2.3 amd64\npython3 (>= 3.11), python3 (<< 3.12)")


def test_scores_are_compared_as_the_bundle_measures() -> None:
    expected = {"effusion": 0.1, "mass": 0.3}
    assert normalised_error(expected, expected) == 0.0
    assert normalised_error({"effusion": 0.12, "mass": 0.32}, expected) == pytest.approx(0.2)
    assert normalised_error({"effusion": 0.1}, expected) == float("inf")
