"""`tools/test_arm64`: the arm64 package in an arm64 Debian 12 under emulation (qemu-user), with no network.

Installs it, runs `radbox selftest`, reads computed chests, and holds each report against the one that this machine
writes for the same file: same statements, and scores within the tolerance that the model's bundle sets for a backend.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edge.bundle import load_bundle
from tools.deb.architectures import ARCHITECTURES
from tools.deb.container import base_system, missing_tools, run_in
from tools.deb.run import BUILD, make, own_version
from tools.deb.tree import ROOT

FORMAT: Final = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")  # of the Debian package qemu-user-static
KINDS: Final = Path("/proc/sys/fs/binfmt_misc")
CPU: Final = "cortex-a76"  # of the Raspberry Pi 5
# QEMU 7.2 shows its own machine's /proc/cpuinfo to the programs it runs, and both model runtimes end with SIGSEGV when
# they look there for an ARM core and find none. So they are shown what a board's kernel would show.
CORE: Final = """\
processor\t: {number}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
AS_ON_A_BOARD: Final = f'mount --bind /root/cpuinfo /proc/cpuinfo && export QEMU_CPU={CPU} && exec "$@"'
CHESTS: Final = (  # options of `radbox simulate`; between them they give drafts with and without statements
    ("effusion", "--finding", "effusion", "--side", "right", "--seed", "1"),
    ("mass", "--finding", "mass", "--side", "right", "--zone", "upper", "--seed", "1"),
    ("healthy", "--seed", "3"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """All of it; 0 if the reports agree."""
    parser = argparse.ArgumentParser("test_arm64", description=__doc__)
    parser.add_argument("--deb", type=Path, metavar="FILE", help="this package; by default one is made")
    parsed = parser.parse_args(arguments)
    if lacking := missing_tools():
        raise SystemExit(f"test_arm64: {lacking}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("test_arm64: stopped"))  # nothing is left behind then either
    emulate()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".arm64-") as name:
        folder = Path(name)
        root = prepare(parsed.deb, folder)
        began_s = time.monotonic()
        run_in(root, "dpkg", "--force-unsafe-io", "--install", "/root/radbox.deb")
        figures["install_s"] = round(time.monotonic() - began_s, 1)
        installed = run_in(root, "/opt/radbox/bin/python3", "-c", "import platform; print(platform.machine())")
        if installed.stdout.strip() != "aarch64":
            raise SystemExit(f"test_arm64: expected an aarch64 system, got {installed.stdout.strip()}")
        began_s = time.monotonic()
        selftest = run_as_on_a_board(root, "radbox", "selftest", "--json", check=False)
        print(selftest.stdout, flush=True)
        figures["selftest_s"] = round(time.monotonic() - began_s, 1)
        if selftest.returncode:
            raise SystemExit(f"test_arm64: the self-test failed\n{selftest.stderr}")
        figures["studies"] = [compare(root, folder, name, options) for name, *options in CHESTS]
    print(json.dumps(figures, indent=1))
    print("test_arm64: same statements on arm64 and amd64, scores within the bundle's tolerance")
    return 0


def prepare(package: Path | None, folder: Path) -> Path:
    """A fresh arm64 system with the package's file in it, in `folder`."""
    made = package
    if made is None:
        (folder / "tree").mkdir()
        made = make(ARCHITECTURES["arm64"], own_version(), folder, folder / "tree", quick=True)
    root = folder / "root"
    subprocess.run(["cp", "--archive", str(base_system(BUILD, "arm64")), str(root)], check=True)
    shutil.copy(made, root / "root" / "radbox.deb")
    return root


def run_as_on_a_board(root: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`run_in`, on the emulated CPU of a board."""
    (root / "root" / "cpuinfo").write_text("".join(CORE.format(number=number) for number in range(2)))
    return run_in(root, "sh", "-c", AS_ON_A_BOARD, "sh", *command, check=check)


def emulate() -> None:
    """Have the kernel run arm64 programs through QEMU, if it does not already. Stops where that is not possible."""
    if not (KINDS / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(KINDS)], check=False, stderr=subprocess.DEVNULL)
    if (KINDS / "qemu-aarch64").exists() or os.uname().machine == "aarch64":
        return
    try:
        (KINDS / "register").write_bytes(FORMAT.read_bytes())
    except OSError as error:
        message = f"needs binfmt_misc and the Debian package qemu-user-static ({error.strerror})"
        raise SystemExit(f"test_arm64: {message}") from None


def compare(root: Path, folder: Path, name: str, options: Sequence[str]) -> dict[str, Any]:
    """One computed chest, read here and there. Stops where the reports differ."""
    image = folder / f"{name}.dcm"
    here_command = [str(ROOT / ".venv/bin/radbox")]
    subprocess.run([*here_command, "simulate", *options, "--out", str(image)], check=True, capture_output=True)
    shutil.copy(image, root / "root" / image.name)
    told = subprocess.run([*here_command, "read", "--json", str(image)], check=True, capture_output=True, text=True)
    here = json.loads(told.stdout)
    began_s = time.monotonic()
    there = json.loads(run_as_on_a_board(root, "radbox", "read", "--json", f"/root/{image.name}").stdout)
    took_s = time.monotonic() - began_s
    if here["status"] != "draft" or _said(here) != _said(there):
        raise SystemExit(f"test_arm64: {name}: expected {_said(here)}, got {_said(there)}")
    error = normalised_error(there["scores"], here["scores"])
    tolerance = load_bundle(ROOT / "models" / "bundles" / "chest").manifest.golden.tolerance["findings"]
    if error > tolerance:
        raise SystemExit(f"test_arm64: {name}: expected scores within {tolerance}, got {error:.4f} off")
    return {
        "chest": name,
        "statements": _said(here)[1],
        "scores_off": round(error, 6),
        "largest_difference": max(abs(there["scores"][code] - here["scores"][code]) for code in here["scores"]),
        "read_s": round(took_s, 1),
    }


def normalised_error(found: dict[str, float], expected: dict[str, float]) -> float:
    """The bundle's measure (edge/bundle.py, Golden): mean |got - expected| / std(expected)."""
    if found.keys() != expected.keys():
        return float("inf")
    off = statistics.fmean(abs(found[code] - expected[code]) for code in expected)
    return off / max(statistics.pstdev(expected.values()), 1e-6)


def _said(entry: dict[str, Any]) -> tuple[str, list[tuple[str, str, str, str]]]:
    """Status, and the statements without their numbers."""
    statements = entry["report"]["statements"] if entry["report"] else []
    keys = ("finding", "side", "zone", "certainty")
    return entry["status"], [tuple(one[key] for key in keys) for one in statements]


if __name__ == "__main__":
    sys.exit(main())
