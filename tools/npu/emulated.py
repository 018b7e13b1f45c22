"""The real rknn-toolkit-lite2 on this machine: an arm64 Python under QEMU, the wheels, and what looks like an RK3588.

What takes the place of librknnrt.so and the NPU is tests/npu_librknnrt.c.

    .venv/bin/python -m tools.npu.emulated

fetches the wheels by hash into build/npu, and makes the arm64 Debian of tools/test_arm64 if it is not there. After that
tests/test_rknn_emulated.py runs; without it that test skips.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from tools.deb.container import base_system
from tools.deb.run import BUILD
from tools.deb.tree import ROOT

FOLDER: Final = ROOT / "build" / "npu"
QEMU: Final = "qemu-aarch64-static"  # of the Debian package qemu-user-static
COMPILER: Final = "aarch64-linux-gnu-gcc"
PLATFORMS: Final = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
VERSIONS: Final = ("2.3.0", "2.3.2", "2.5.0")
LITE: Final = "rknn-toolkit-lite2"
COMMON: Final = (
    "cffi==2.1.1", "cryptography==50.0.2", "numpy==2.4.6", "psutil==7.2.2", "ruamel.yaml==0.19.1", "safetensors==0.8.0",
)  # fmt: skip
SHA256: Final = {  # of the wheels for CPython 3.11
    name: digest
    for digest, name in (line.split() for line in (ROOT / "tools" / "npu" / "wheels.txt").read_text().splitlines())
}


def missing() -> str:
    """What lacks for running under emulation; "" if nothing does."""
    for program in (QEMU, COMPILER):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not all((FOLDER / version).is_dir() for version in VERSIONS) or not debian().is_dir():
        return "python -m tools.npu.emulated was not run"
    return ""


def debian() -> Path:
    """The arm64 Debian 12, whose Python is 3.11."""
    return BUILD / "rootfs-arm64"


def fetch() -> None:
    """See the module docstring."""
    base_system(BUILD, "arm64")
    for version in VERSIONS:
        target = FOLDER / version
        if not target.is_dir():
            part = target.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            _unpack(_download((f"{LITE}=={version}", *COMMON), FOLDER / "wheels"), part)
            part.rename(target)


def _download(requirements: tuple[str, ...], folder: Path) -> list[Path]:
    """The wheels, each held against its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels = []
    for requirement in requirements:
        name, version = requirement.split("==")
        name = f"{re.sub('[-.]', '_', name)}-{version}"
        if not list(folder.glob(f"{name}-*.whl")):
            options = [f"--platform={platform}" for platform in PLATFORMS]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version=3.11", *options, f"--dest={folder}", requirement]
            subprocess.run(command, check=True)
        (wheel,) = folder.glob(f"{name}-*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != SHA256.get(wheel.name):
            raise SystemExit(f"emulated: {wheel.name} has the sha256 {digest}, which is not the one expected")
        wheels.append(wheel)
    return wheels


def _unpack(wheels: list[Path], folder: Path) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def board(folder: Path, library: Path | None) -> Path:
    """A root folder for QEMU: Debian's files, and what rknnlite looks for on a board. library: as librknnrt.so."""
    root = folder / "root"
    (root / "usr" / "lib").mkdir(parents=True)
    for entry in (debian() / "usr").iterdir():
        if entry.name != "lib":
            (root / "usr" / entry.name).symlink_to(entry)
    for entry in (debian() / "usr" / "lib").iterdir():
        (root / "usr" / "lib" / entry.name).symlink_to(entry)
    (root / "lib").symlink_to("usr/lib")
    (root / "proc" / "device-tree").mkdir(parents=True)
    (root / "proc" / "device-tree" / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    (root / "dev" / "dri").mkdir(parents=True)
    (root / "dev" / "dri" / "renderD129").touch()
    if library is not None:
        shutil.copy(library, root / "usr" / "lib" / "librknnrt.so")
    return root


def build_library(source: Path, folder: Path, *definitions: str) -> Path:
    """tests/npu_librknnrt.c for arm64."""
    library = folder / "librknnrt.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", *(f"-D{one}" for one in definitions)]
    subprocess.run([COMPILER, *options, "-o", library, source], check=True)
    return library


def run(root: Path, version: str, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python program with rknn-toolkit-lite2 `version`, on the board at `root`."""
    environment = {
        **os.environ, "PYTHONHOME": "/usr", "PYTHONPATH": f"{FOLDER / version}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    python = debian() / "usr" / "bin" / "python3.11"
    command = [QEMU, "-cpu", "cortex-a76", "-L", str(root), str(python), str(program), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)


if __name__ == "__main__":
    fetch()
