"""The Python part of the package: wheels of the lock, checked by their hashes, unpacked into a venv's folder.

Nothing of the target architecture is run: pip chooses the wheels by their tags, so the arm64 package is made on amd64.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.deb.architectures import Architecture

PYTHON: Final = (3, 11)  # of Debian 12
# Parts of wheels that no service loads: compilers and drivers for accelerators that no board has (they name libraries
# that Debian does not have either), command line tools, and the libraries' own tests.
LEFT_OUT: Final = (
    "ai_edge_litert/vendors",
    "ai_edge_litert/tools/apply_plugin_main",
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "apsw/sqlite_extra_binaries",
    "jpeg_ls/tests",
    "numpy/**/tests",
    "pydicom/data/test_files",
    "pynetdicom/tests",
)
LAUNCHER: Final = "#!/opt/radbox/bin/python3\nimport sys\n\nfrom edge.__main__ import main\n\nsys.exit(main())\n"


def _pip(*arguments: str | Path, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
    )
    if done.returncode:
        shown = [line for line in done.stdout.splitlines() if " is ignored: " not in line]
        raise SystemExit("\n".join(["make_deb: pip failed:", *shown[-12:]]))


def _target(architecture: Architecture) -> list[str]:
    """What pip must believe of the machine that the wheels are for."""
    version = ".".join(map(str, PYTHON))
    abi = "cp" + "".join(map(str, PYTHON))
    options = ["--implementation", "cp", "--python-version", version]
    for name in (abi, "abi3", "none"):
        options += ["--abi", name]
    for name in architecture.platforms:
        options += ["--platform", name]
    return options


def fetch(lock: Path, architecture: Architecture, cache: Path) -> Path:
    """The lock's wheels in a folder of `cache`; fetched only where the lock has changed. No source package is taken."""
    if sys.version_info[:2] != PYTHON:  # markers of the lock are those of the Python that runs pip
        found = ".".join(map(str, sys.version_info[:2]))
        raise SystemExit(f"make_deb: expected the .venv to be of Python {'.'.join(map(str, PYTHON))}, got {found}")
    folder = cache / f"wheels-{architecture.debian}"
    stamp = folder / "lock.txt"
    if not stamp.is_file() or stamp.read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        options = ["--require-hashes", "--no-deps", "--only-binary=:all:", *_target(architecture)]
        _pip("download", *options, "--requirement", lock, "--dest", folder)
        shutil.copy(lock, stamp)
    return folder


def build_own(root: Path, folder: Path) -> None:
    """The wheel of this checkout in `folder`."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    _pip(
        "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, root, environment=environment
    )


def install(lock: Path, wheels: Path, own: Path, architecture: Architecture, venv: Path) -> Path:
    """Lay out the venv at `venv` (it will be /opt/radbox); returns its site-packages.

    Every wheel is checked against the lock's hashes once more; `own` holds the wheel of this checkout.
    """
    site = venv / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"
    common: list[str | Path] = [
        "install",
        "--target",
        site,
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
    ]
    target = _target(architecture)
    _pip(*common, *target, "--require-hashes", "--find-links", wheels, "--requirement", lock)
    _pip(*common, *target, "--upgrade", "--find-links", own, "radbox")
    shutil.rmtree(site / "bin", ignore_errors=True)  # commands whose first line names this machine's Python
    for path in [path for pattern in LEFT_OUT for path in site.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for record in site.glob("*.dist-info/RECORD"):
        _forget_missing(record)
    binaries = venv / "bin"
    binaries.mkdir(parents=True)
    name = f"python{PYTHON[0]}.{PYTHON[1]}"
    (binaries / name).symlink_to(f"/usr/bin/{name}")
    for link in ("python3", "python"):
        (binaries / link).symlink_to(name)
    (binaries / "radbox").write_text(LAUNCHER)
    (binaries / "radbox").chmod(0o755)
    (venv / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {name[6:]}\n")
    return site


def _forget_missing(record: Path) -> None:
    """Strike out what is not there, so that the list of installed files stays true."""
    site = record.parent.parent
    rows = [row for row in csv.reader(io.StringIO(record.read_text())) if (site / row[0]).is_file()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    record.write_text(text.getvalue())


def compile_modules(site: Path, installed: str) -> None:
    """Byte code beside every module, so that no service has to compile at its start (it could not write it either).

    `installed`: where the folder will lie. Not checked against the source at run time: both are in one package.
    """
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(site), "-p", installed, str(site)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})
