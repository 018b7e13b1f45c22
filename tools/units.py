"""`tools/check_units`: every unit of systemd/ as `systemd-analyze verify` and `systemd-analyze security` see it.

They are looked at where the package puts them, in a root of their own with Debian's units beside and a stand-in for
each command that they start. `verify` ends well even on a key that it does not know: what counts is that it is silent.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
UNITS: Final = ROOT / "systemd"
SYSTEM: Final = Path("/usr/lib/systemd/system")
PLACE: Final = Path("usr/lib/systemd/system")
WORST: Final = 2.0  # 0 is locked up, 10 wide open (systemd-analyze(1))
SUFFIXES: Final = (".service", ".target", ".path", ".timer", ".socket", ".mount")


def main() -> int:
    """Print a line for each unit; 1 if one is found wanting."""
    with tempfile.TemporaryDirectory(prefix="units-") as folder:
        root = stand_in(Path(folder))
        names = [instance(path.name) for path in unit_files()]
        complaints = verify(root, names)
        scores = exposures(root, [name for name in names if name.endswith(".service")])
    for name in names:
        print(f"{scores[name]:4.1f}  {name}" if name in scores else f"   -  {name}")
    for line in complaints:
        print(f"check_units: systemd-analyze verify: {line}", file=sys.stderr)
    exposed = [name for name, score in scores.items() if score > WORST]
    for name in exposed:
        print(f"check_units: expected an exposure of at most {WORST}, got {scores[name]}: {name}", file=sys.stderr)
    return int(bool(complaints or exposed))


def unit_files() -> list[Path]:
    """The unit files of systemd/, by name."""
    return sorted(path for path in UNITS.iterdir() if path.suffix in SUFFIXES)


def instance(name: str) -> str:
    """A name that can be looked at: templates get an instance."""
    return name.replace("@.", "@sda1.")


def stand_in(root: Path) -> Path:
    """A root folder with Debian's units, ours, and something executable under the name of each of our commands."""
    shutil.copytree(SYSTEM, root / PLACE, symlinks=True)
    (root / "lib").symlink_to("usr/lib")
    for path in unit_files():
        text = path.read_text(encoding="utf-8")
        (root / PLACE / path.name).write_text(text, encoding="utf-8")
        for command in re.findall(r"^Exec\w+=[-@:+!]*(/\S+)", text, re.MULTILINE):
            stub = root / command.lstrip("/")
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.write_text("#!/bin/sh\n")
            stub.chmod(0o755)
    return root


def verify(root: Path, names: list[str]) -> list[str]:
    """What `systemd-analyze verify` says of our units, and nothing that it says of Debian's own."""
    done = _analyze(root, "verify", "--man=no", *names)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    ours = [line for line in lines if "radbox" in line]
    return ours or ([f"status {done.returncode}", *lines] if done.returncode else [])


def exposures(root: Path, names: list[str]) -> dict[str, float]:
    """Unit -> overall exposure level."""
    scores = {}
    for name in names:
        done = _analyze(root, "security", "--offline=yes", "--threshold=100", "--no-pager", name)
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        if not found:
            raise SystemExit(f"check_units: expected a score for {name}, got {json.dumps(done.stderr)}")
        scores[name] = float(found[1])
    return scores


def _analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", f"--root={root}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0"},
    )


if __name__ == "__main__":
    sys.exit(main())
