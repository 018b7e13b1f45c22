"""`tools/test-vm`: build what is missing, start the machine, run the scenarios, say how each went."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tools.image.main import CHECKOUT, make, newest_deb
from tools.image.rootfs import ImageError
from tools.vm import report
from tools.vm.bench import Bench, Findings
from tools.vm.machine import FIRMWARE, QEMU
from tools.vm.scenarios import FIRST, SCENARIOS
from tools.vm.wire import VmError

PROGRAMS = {
    QEMU: "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "storescu": "dcmtk",
    "dcmmkdir": "dcmtk",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "nbdkit": "nbdkit",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; 0 all held, 1 something did not, 2 it cannot be run here."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that no machine is left behind
    if lacking := _missing():
        sys.stderr.write(f"test-vm: {lacking}\n")
        return 2
    folder = parsed.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    start_s = time.monotonic()
    try:
        bench = Bench(parsed.image or _image(parsed.deb, folder, parsed.cache), folder)
        if not bench.test_image:
            raise VmError("expected a test image (make_image --test), got one for a clinic: it lets nobody in")
    except (VmError, ImageError) as error:
        sys.stderr.write(f"test-vm: {error}\n")
        return 2
    log_file = parsed.log or folder / "test-vm.log"
    with log_file.open("w") as log:
        names = parsed.only or list(SCENARIOS)
        if FIRST not in names and not bench.has_snapshot():
            names = [FIRST, *names]
        results = [_run(bench, Findings(name, log)) for name in SCENARIOS if name in names]
        seconds = time.monotonic() - start_s
        shown = (
            f"{report.table(results)}\n\n{report.markdown(results)}\n\n{len(results)} scenarios in {seconds:.0f} s\n"
        )
        log.write("\n" + shown)
    about = {"image": bench.image.name, "seconds": round(seconds), "qemu": _version(), "cores": os.cpu_count()}
    log_file.with_suffix(".json").write_text(report.document(results, **about))
    sys.stdout.write(shown)
    return 0 if all(one.held for one in results) else 1


def _run(bench: Bench, found: Findings) -> Findings:
    """One scenario; what keeps it from its end counts as a check that did not hold."""
    found.say("begins")
    try:
        SCENARIOS[found.name](bench, found)
    except Exception as error:  # the next scenario starts from the snapshot, whatever became of this one
        found.note(traceback.format_exc())
        found.check("the scenario ran to its end", False, f"{type(error).__name__}: {error}")
    found.seconds = time.monotonic() - found.start_s
    console = bench.folder / found.name / "console.log"
    if not found.held and console.exists():
        found.note(f"console:\n{console.read_text(errors='replace')[-8000:]}")
    found.say(f"{'ok' if found.held else 'FAILED'} after {found.seconds:.0f} s")
    return found


def _image(deb: Path | None, folder: Path, cache: Path) -> Path:
    """The test image of a package, made if there is none or the package is newer; the package too."""
    deb = deb or newest_deb(CHECKOUT / "build", "amd64")
    if deb is None:
        sys.stderr.write("test-vm: no package in build/: running tools/make_deb\n")
        subprocess.run([CHECKOUT / "tools" / "make_deb"], check=True, stdout=sys.stderr)
        deb = newest_deb(CHECKOUT / "build", "amd64")
    if deb is None or not deb.is_file():
        raise ImageError("expected tools/make_deb to make a package, got none")
    image = folder / "radbox-test.img"
    if not image.exists() or image.stat().st_mtime < deb.stat().st_mtime:
        make(deb.resolve(), image, cache, "amd64", test=True)
    return image


def _missing() -> str:
    """What keeps this host from running virtual machines, as one sentence; empty if nothing does."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = {package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}
    if not all(file.exists() for file in FIRMWARE):
        lacking.add("ovmf")
    return f"virtual machines need the Debian packages {' '.join(sorted(lacking))}" if lacking else ""


def _version() -> str:
    return subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("test-vm", description=__doc__)
    parser.add_argument("--image", metavar="FILE", type=Path, help="a test image (default: made from the package)")
    parser.add_argument("--deb", metavar="FILE", type=Path, help="the package (default: the newest below build/)")
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(SCENARIOS), help="may be given again")
    parser.add_argument("--log", metavar="FILE", type=Path, help="default: test-vm.log in the folder")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    where = "image, snapshot, logs (default: %(default)s)"
    parser.add_argument("--folder", metavar="DIR", type=Path, default=caches / "radbox-vm", help=where)
    parser.add_argument("--cache", metavar="DIR", type=Path, default=caches / "radbox-image", help="as of make_image")
    return parser


if __name__ == "__main__":
    sys.exit(main())
