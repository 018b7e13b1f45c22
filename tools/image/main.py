"""`tools/make_image`: a disk image that starts on a PC: a small Debian and the radbox package."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.image import sbom
from tools.image.disk import make_disk
from tools.image.rootfs import KERNELS, ImageError, base, build, packages_for, run, say

CHECKOUT = Path(__file__).resolve().parents[2]
SBOM_IN_IMAGE = "usr/share/doc/radbox-image/sbom.cdx.json"
LOUD = """\
make_image: ************************************************************
make_image: TEST IMAGE: anybody at its serial ports is root without a
make_image: password. It is for tools/test-vm and never for a clinic.
make_image: ************************************************************
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns 0 done, 1 failed, 2 wrong use."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    deb = parsed.deb or newest_deb(CHECKOUT / "build", parsed.arch)
    if deb is None or not deb.is_file():
        parser.error(
            f"expected a radbox package, got {'no such file' if deb else 'none in build/'}: run tools/make_deb"
        )
    if os.geteuid() != 0:
        parser.error("expected to run as root: the files of the image have owners")
    try:
        make(deb.resolve(), parsed.out, parsed.cache, parsed.arch, test=parsed.test, fresh=parsed.fresh)
    except ImageError as error:
        sys.stderr.write(f"make_image: {error}\n")
        return 1
    if parsed.test:
        sys.stderr.write(LOUD)
    return 0


def make(deb: Path, out: Path | None, cache: Path, architecture: str, *, test: bool, fresh: bool = False) -> Path:
    """Write the image and, beside it, its SBOM; returns the image. Raises ImageError."""
    start_s = time.monotonic()
    name, version, built_for = (
        run("dpkg-deb", "--field", deb, one).strip() for one in ("Package", "Version", "Architecture")
    )
    if (name, built_for) != ("radbox", architecture):
        raise ImageError(f"expected the package radbox for {architecture}, got {name} for {built_for}")
    out = (out or CHECKOUT / "build" / f"radbox_{version}_{architecture}{'-test' if test else ''}.img").absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    base_tar = base(cache, architecture, packages_for(deb, architecture), fresh)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=cache) as folder:
        work = Path(folder)
        rootfs = work / "rootfs"
        build(base_tar, deb, rootfs, test)
        bill = json.dumps(_bill(rootfs, version), indent=1) + "\n"
        target = rootfs / SBOM_IN_IMAGE
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(bill)
        table = make_disk(rootfs, out, work, architecture, version, test)
    out.with_suffix(".cdx.json").write_text(bill)
    seconds = time.monotonic() - start_s
    say(
        f"wrote {out} in {seconds:.0f} s: {table.disk_bytes >> 20} MiB, {out.stat().st_blocks // 2048} MiB of them used"
    )
    return out


def _bill(rootfs: Path, version: str) -> dict[str, Any]:
    """The package's own SBOM, wherever it installed it, and Debian's packages. Wheels bring SBOMs too: not those."""
    files = (rootfs / "var/lib/dpkg/info/radbox.list").read_text().splitlines()
    found = [line for line in files if line.endswith(".cdx.json") and "/site-packages/" not in line]
    package = json.loads((rootfs / found[0].lstrip("/")).read_text()) if found else None
    if package is None:
        say("the package brings no SBOM of its own; the image's lists Debian's packages only")
    return sbom.merge(package, sbom.installed(rootfs), version)


def newest_deb(folder: Path, architecture: str) -> Path | None:
    """The package that was built last, below `folder`."""
    found = folder.rglob(f"radbox_*_{architecture}.deb") if folder.is_dir() else ()
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("make_image", description=__doc__)
    parser.add_argument("--deb", metavar="FILE", type=Path, help="the package (default: the newest below build/)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the image (default: build/radbox_VERSION_ARCH.img)")
    parser.add_argument("--arch", choices=sorted(KERNELS), default="amd64")
    parser.add_argument("--test", action="store_true", help="with a root shell on the serial port; never for a clinic")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "radbox-image")
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, default=cache, help="keeps the Debian base (default: %(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="make the Debian base anew, with today's security updates")
    return parser


if __name__ == "__main__":
    sys.exit(main())
