"""The scripts, the locks and what must not be in the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.toml import load_toml

SCRIPTS = (
    *("tools/run", "tools/test", "tools/setup", "tools/check", "tools/lock", "tools/show_run", ".ci/run"),
    *("tools/make_update", "tools/fleet", "tools/fuzz_parsers", "tools/soak_test", "tools/chaos_test"),
    *("tools/powercut_test", "tools/crash_points", "tools/kill_storm", "tools/bench_receive"),
    *(
        "tools/setup_tflite_runtime",
        "tools/build_cuda",
        "tools/check_cuda",
        "tools/check_cuda_shim",
        "tools/bench_cuda",
    ),
    *("tools/bench_backup", "tools/make_os_bundle", "tools/compile_vela", "tools/compile_rknn", "tools/check_tensorrt"),
)
LOCKS = (
    *("run", "build", "dev", "train", "vela", "tflite-runtime", "cuda", "rknn", "tensorrt-rtx", "tensorrt-onnx"),
    *("tensorrt-10.3", "tensorrt-10.13", "tensorrt-10.16", "tensorrt-11.4"),
)
PIN = re.compile(r"^([a-z0-9-]+)==(\S+?)(?: ; (.+?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
LEFT_OUT = {".git", ".venv", ".venv-train", "build", "var", "train", "__pycache__", ".hypothesis"}


def locked(root: Path, name: str) -> dict[tuple[str, str], str]:
    """(distribution, marker) -> version of one lock, every line of which is a pin or a hash."""
    pins = {}
    first, *lines = (root / "requirements" / f"{name}.txt").read_text().splitlines()
    assert first.startswith("#")
    for line in lines:
        pin = PIN.match(line)
        assert pin or HASH.match(line), f"{name}.txt: {line}"
        if pin:
            pins[pin[1], pin[3] or ""] = pin[2]
    return pins


def distribution(requirement: str) -> str:
    return re.split(r"[\[<>=; ]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_run_and_are_sound(script: str, root: Path) -> None:
    path = root / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env bash\n# ")
    subprocess.run(["bash", "-n", path], check=True)


def test_ci_runs_what_the_readme_says(root: Path) -> None:
    assert "exec tools/test\n" in (root / ".ci" / "run").read_text()
    assert "\ntools/test" in (root / "README.md").read_text()


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_pinned_and_hashed(name: str, root: Path) -> None:
    assert len(locked(root, name)) >= 1


def test_locks_hold_what_the_project_asks_for(root: Path) -> None:
    project = load_toml(root / "pyproject.toml")
    groups = project["dependency-groups"]
    run = {distribution(one) for one in project["project"]["dependencies"]}
    build = {distribution(one) for one in groups["build"]}
    dev = {distribution(one) for one in groups["dev"] if isinstance(one, str)}
    train = {distribution(one) for one in groups["train"]}
    for name, asked in (("run", run), ("build", build), ("dev", run | build | dev), ("train", train)):
        assert asked <= {distribution for distribution, _marker in locked(root, name)}, name


def test_tests_run_with_what_the_box_runs_with(root: Path) -> None:
    tested = locked(root, "dev").items()
    assert locked(root, "run").items() <= tested
    assert locked(root, "build").items() <= tested


def test_no_training_library_on_the_box(root: Path) -> None:
    names = {distribution for distribution, _marker in locked(root, "run")}
    assert not names & {"torch", "jax", "tensorflow", "onnx", "scikit-learn", "litert-torch", "pytest", "uv"}


def copied_setup(root: Path, folder: Path, commands: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
    """tools/setup in an empty checkout, and an environment whose PATH holds only `commands`."""
    (folder / "tools").mkdir()
    shutil.copy(root / "tools" / "setup", folder / "tools")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for command in commands:
        found = sys.executable if command == "python3" else shutil.which(command)
        assert found, command
        (bin_folder / command).symlink_to(Path(found).resolve())
    return folder / "tools" / "setup", {"PATH": str(bin_folder)}


def test_setup_names_missing_packages_where_it_cannot_install(root: Path, tmp_path: Path) -> None:
    script, environment = copied_setup(root, tmp_path, ("bash", "dirname", "id", "python3"))
    done = subprocess.run(["bash", script, "--test"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for package in ("g++", "dcmtk", "chromium-headless-shell"):
        assert package in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_setup_says_that_python_is_missing(root: Path, tmp_path: Path) -> None:
    script, environment = copied_setup(root, tmp_path, ("bash", "dirname"))
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Python 3.10 to 3.13 is needed" in done.stderr


@pytest.mark.parametrize("script", ["tools/setup", "tools/check"])
def test_wrong_argument_is_told(script: str, root: Path) -> None:
    done = subprocess.run([root / script, "--fast"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--fast" in done.stderr


def text_files(root: Path) -> list[Path]:
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [one for one in folders if one not in LEFT_OUT and not one.endswith(("_cache", ".egg-info"))]
        files += [Path(folder, name) for name in names]
    return [file for file in files if b"\0" not in file.read_bytes()[:4096]]


def test_no_file_names_a_machine_or_a_registry(root: Path) -> None:
    """Paths of one machine and addresses of package registries do not belong into the tree."""
    machine = re.compile(r"/(work|root|opt)/(main|shared|brief|train|wheels|pypi)\b")
    registry = re.compile(r"\b(py[p]i|pythonhoste[d]|npm[j]s|d[e]bian)\.org\b|download\.pytorch\b|--(extra-)?index-url")
    found = [
        f"{file.relative_to(root)}: {match[0]}"
        for file in text_files(root)
        for pattern in (machine, registry)
        for match in pattern.finditer(file.read_text(errors="replace"))
        if file.name != "test_tools.py"
    ]
    assert found == []
