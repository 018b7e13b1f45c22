"""The control part of the package, and the package file itself."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

from tools.deb.architectures import Architecture

SCRIPTS: Final = Path(__file__).with_name("debian")
MAINTAINER: Final = "The radbox project <radbox@localhost>"
MAINTAINER_SCRIPTS: Final = ("config", "postinst", "prerm", "postrm")
FIXED_NEEDS: Final = (
    "python3 (>= 3.11)",
    "python3 (<< 3.12)",
    "python3.11",
    "systemd (>= 252)",
    "udev",
    "debconf (>= 0.5) | debconf-2.0",
)


def write_control(package: Path, architecture: Architecture, version: str, depends: Sequence[str]) -> None:
    """DEBIAN/ of the tree `package`: control, md5sums, maintainer scripts, the question that purge asks."""
    debian = package / "DEBIAN"
    debian.mkdir()
    files = sorted(path for path in package.rglob("*") if path.is_file() and not path.is_symlink())
    files = [path for path in files if debian not in path.parents]
    control = Template((SCRIPTS / "control").read_text()).substitute(
        version=version,
        maintainer=MAINTAINER,
        architecture=architecture.debian,
        installed_kib=sum(max(4096, path.stat().st_size) for path in files) // 1024,
        depends=", ".join(depends),
    )
    (debian / "control").write_text(control)
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(package)}\n" for path in files]
    (debian / "md5sums").write_text("".join(sums))
    (debian / "templates").write_bytes((SCRIPTS / "templates").read_bytes())
    for name in MAINTAINER_SCRIPTS:
        (debian / name).write_bytes((SCRIPTS / name).read_bytes())


def build(package: Path, out: Path, name: str, epoch_s: int, *, quick: bool = False) -> Path:
    """Pack the tree as `name`.deb; the same tree and `epoch_s` give the same bytes. `quick`: larger, for tests."""
    for path in [*package.rglob("*"), package]:
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.deb"
    part = out / f".{name}.part"
    packing = ("-Zgzip", "-z1") if quick else ("-Zxz", "-z3", "--threads-max=2")
    command = ["dpkg-deb", "--root-owner-group", *packing, "--build", str(package), str(part)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s)}
    )
    if done.returncode:
        raise SystemExit(f"make_deb: dpkg-deb failed: {done.stderr.strip()}")
    part.replace(file)
    return file
