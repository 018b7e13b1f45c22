"""`tools/make_deb [--arch amd64|arm64] [--out DIR]`: the Debian package of the box, installable with no network."""

from __future__ import annotations

import argparse
import email.utils
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge.toml import parse_toml
from tools.deb.architectures import ARCHITECTURES, Architecture
from tools.deb.libraries import needed_packages
from tools.deb.package import FIXED_NEEDS, MAINTAINER, build, write_control
from tools.deb.sbom import INSTALLED, copyright_text, encode, package_sbom
from tools.deb.tree import DOCUMENTS, HOME, ROOT, lay_out, settle
from tools.deb.wheels import build_own, compile_modules, fetch, install

LOCK = ROOT / "requirements" / "run.txt"
BUILD = ROOT / "build" / "deb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the package, print its path."""
    parser = argparse.ArgumentParser("make_deb", description=__doc__)
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="amd64")
    parser.add_argument("--out", type=Path, default=BUILD, metavar="DIR", help="default: build/deb")
    parser.add_argument("--version", default=own_version(), help="default: that of pyproject.toml")
    parser.add_argument("--quick", action="store_true", help="pack less tightly: seconds, not minutes")
    parsed = parser.parse_args(arguments)
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".tree-") as folder:
        print(make(ARCHITECTURES[parsed.arch], parsed.version, parsed.out, Path(folder), quick=parsed.quick))
    return 0


def make(architecture: Architecture, version: str, out: Path, folder: Path, *, quick: bool = False) -> Path:
    """The package file in `out`; `folder` is for its tree."""
    package, own = folder / "radbox", folder / "own"
    wheels = fetch(LOCK, architecture, BUILD)
    epoch_s = source_date()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch_s)
    build_own(ROOT, own)
    site = install(LOCK, wheels, own, architecture, package / HOME)
    lay_out(package, architecture, BUILD)
    compile_modules(site, f"/{site.relative_to(package)}")
    depends = [*FIXED_NEEDS, *needed_packages(package, architecture)]
    sbom = package / INSTALLED
    sbom.parent.mkdir()
    sbom.write_bytes(encode(package_sbom(package, wheels, depends, version, epoch_s)))
    (package / DOCUMENTS / "copyright").write_text(copyright_text(sbom))
    (package / DOCUMENTS / "changelog.gz").write_bytes(gzip.compress(changelog(version, epoch_s).encode(), 9, mtime=0))
    shutil.rmtree(own)
    write_control(package, architecture, version, depends)
    settle(package)
    return build(package, out, f"radbox_{version}_{architecture.debian}", epoch_s, quick=quick)


def make_quickly(out: Path) -> Path:
    """A package of this checkout for this machine's own trials."""
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".tree-") as folder:
        return make(ARCHITECTURES["amd64"], own_version(), out, Path(folder), quick=True)


def changelog(version: str, epoch_s: int) -> str:
    """debian/changelog (deb-changelog(5)): the changes themselves are in CHANGELOG.md beside it."""
    date = email.utils.formatdate(epoch_s)
    return (
        f"radbox ({version}) bookworm; urgency=medium\n\n  * What changed: CHANGELOG.md in this folder.\n\n"
        f" -- {MAINTAINER}  {date}\n"
    )


def own_version() -> str:
    """Of pyproject.toml."""
    return str(parse_toml((ROOT / "pyproject.toml").read_bytes())["project"]["version"])


def source_date() -> int:
    """SOURCE_DATE_EPOCH, else the time of the last commit (reproducible-builds.org): files bear no other time."""
    named = os.environ.get("SOURCE_DATE_EPOCH")
    if named:
        return int(named)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
