"""Which Debian packages the shared objects of the package need: read from their dynamic sections, not run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from tools.deb.architectures import Architecture

PACKAGES: Final = {
    "libc.so.6": "libc6",
    "libm.so.6": "libc6",
    "libdl.so.2": "libc6",
    "libpthread.so.0": "libc6",
    "librt.so.1": "libc6",
    "libutil.so.1": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
}


def needed_packages(top: Path, architecture: Architecture) -> list[str]:
    """Debian packages of every library that the objects below `top` name and do not bring themselves.

    Stops with a sentence on a library that no package here is known for.
    """
    objects = [path for path in sorted(top.rglob("*.so*")) if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    own = {path.name for path in objects}
    found: set[str] = set()
    for path in objects:
        shown = subprocess.run(
            [architecture.readelf, "--dynamic", "--wide", str(path)], capture_output=True, text=True, check=True
        ).stdout
        for library in re.findall(r"\(NEEDED\).*\[(.+)\]", shown):
            if library in own:
                continue
            if library == architecture.libc_loader:
                library = "libc.so.6"
            if library not in PACKAGES:
                raise SystemExit(f"make_deb: {path.name} needs {library}, which no known Debian package brings")
            found.add(PACKAGES[library])
    return sorted(found)
