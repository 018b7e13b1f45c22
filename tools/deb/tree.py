"""What lies where in the package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tools.deb.architectures import Architecture

ROOT: Final = Path(__file__).resolve().parent.parent.parent
HOME: Final = Path("opt/radbox")
BUNDLE: Final = HOME / "models" / "chest"
DOCUMENTS: Final = Path("usr/share/doc/radbox")
UNITS: Final = Path("lib/systemd/system")
SYSTEM_FILES: Final = {
    "radbox.sysusers": Path("usr/lib/sysusers.d/radbox.conf"),
    "radbox.tmpfiles": Path("usr/lib/tmpfiles.d/radbox.conf"),
    "radbox-watchdog.conf": Path("usr/lib/systemd/system.conf.d/radbox-watchdog.conf"),
}


def lay_out(package: Path, architecture: Architecture, build: Path) -> None:
    """Everything but the venv's site-packages: kernels, model, units, boards, wrapper, documents."""
    _kernels(package, architecture, build)
    shutil.copytree(ROOT / "models" / "bundles" / "chest", package / BUNDLE)
    for name, place in _system_files().items():
        _copy(ROOT / "systemd" / name, package / place)
    for board in sorted((ROOT / "board_configs").glob("*.toml")):
        if board.stem != "sim":
            _copy(board, package / "usr/share/radbox/boards" / board.name)
    link = package / "usr/share/radbox/boards/default.toml"
    link.symlink_to(f"{architecture.board}.toml")
    (package / "etc/radbox").mkdir(parents=True)
    wrapper = package / "usr/bin/radbox"
    wrapper.parent.mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "deb" / "radbox.sh", wrapper)
    wrapper.chmod(0o755)
    for document in sorted((ROOT / "docs").glob("*.md")):
        _copy(document, package / DOCUMENTS / document.name)
    _copy(ROOT / "README.md", package / DOCUMENTS / "README.md")
    _copy(ROOT / "board_configs" / "README.md", package / DOCUMENTS / "boards.md")
    _copy(ROOT / "CHANGELOG.md", package / DOCUMENTS / "CHANGELOG.md")


def _system_files() -> dict[str, Path]:
    """Every file of systemd/ and its place."""
    places = dict(SYSTEM_FILES)
    for path in sorted((ROOT / "systemd").iterdir()):
        if path.suffix in (".service", ".target", ".path"):
            places[path.name] = UNITS / path.name
        elif path.suffix == ".rules":
            places[path.name] = Path("lib/udev/rules.d") / path.name
        elif path.name not in places:
            raise SystemExit(f"make_deb: systemd/{path.name} has no place in the package")
    return places


def _kernels(package: Path, architecture: Architecture, build: Path) -> None:
    """Compiled for the target; the library lies beside the modules that load it."""
    folder = build / f"kernels-{architecture.debian}"
    options = [f"-DCMAKE_CXX_COMPILER={architecture.compiler}"]
    if architecture.debian != _own_architecture():
        options += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={architecture.machine}"]
    if shutil.which(architecture.compiler) is None:
        raise SystemExit(f"make_deb: {architecture.compiler} is missing: apt-get install g++-aarch64-linux-gnu")
    subprocess.run(
        [str(ROOT / "tools" / "build_kernels"), *options],
        check=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "RADBOX_BUILD_DIR": str(folder)},
    )
    (site,) = (package / HOME / "lib").glob("python*/site-packages")
    for name in ("libradbox_kernels.so", "libradbox_tflite.so"):
        shutil.copy(folder / name, site / "edge" / name)
    _cuda(site, build)


def _cuda(site: Path, build: Path) -> None:
    """The GPU's kernels, the same for both architectures; without a compiler such a box decodes on the CPU."""
    folder = build / "cuda"
    done = subprocess.run([str(ROOT / "tools" / "build_cuda"), "--out", str(folder)], check=False)
    if done.returncode == 0:
        shutil.copytree(folder, site / "edge" / "cuda", ignore=shutil.ignore_patterns("*.nvcc"))
    elif done.returncode != 2:  # 2: there is no compiler
        raise SystemExit("make_deb: the GPU's kernels do not compile")


def _own_architecture() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def settle(package: Path) -> None:
    """Modes that do not depend on the umask of whoever builds; nothing may be written by others than root."""
    for path in [package, *package.rglob("*")]:
        if path.is_symlink():
            continue
        executable = path.is_dir() or path.parent.name == "bin" or path.parent.name == "DEBIAN"
        path.chmod(0o755 if executable and path.name not in ("control", "md5sums", "templates") else 0o644)
