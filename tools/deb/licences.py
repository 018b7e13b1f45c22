"""What licence a component is under, as an SPDX expression where its maker's words allow one (spdx.org/licenses)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Final

# Makers who name no SPDX expression: distribution -> what their own licence file says. A new one stops the build.
BY_DISTRIBUTION: Final[Mapping[str, str]] = {
    "apsw-sqlite3mc": "(Zlib OR any-OSI) AND MIT AND blessing",  # APSW, SQLite3 Multiple Ciphers, SQLite
    "jinja2": "BSD-3-Clause",
    "protobuf": "BSD-3-Clause",
    "pyjpegls": "MIT AND BSD-3-Clause",  # the module, and CharLS inside
    "pylibjpeg-libjpeg": "GPL-3.0-only",  # and so is libjpeg by Thomas Richter inside
    "pylibjpeg-openjpeg": "MIT AND BSD-2-Clause",  # the module, and OpenJPEG inside
    "pyserial": "BSD-3-Clause",
    "radbox": "Apache-2.0",
}
WORDS: Final[Mapping[str, str]] = {
    "Apache 2.0": "Apache-2.0",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "MIT": "MIT",
    "MIT License": "MIT",
    "MPL-2.0 AND MIT": "MPL-2.0 AND MIT",
}
# Libraries that wheels bring along, by the beginning of their file name.
BUNDLED: Final[Mapping[str, str]] = {
    "libaom": "BSD-2-Clause",
    "libav": "LGPL-2.1-or-later",  # FFmpeg
    "libavif": "BSD-2-Clause",
    "libcrypto": "OpenSSL",
    "libdrm": "MIT",
    "libgfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgomp": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libopenblas": "BSD-3-Clause",
    "libpng": "libpng-2.0",
    "libquadmath": "LGPL-2.1-or-later",
    "libscipy_openblas": "BSD-3-Clause",
    "libssl": "OpenSSL",
    "libsw": "LGPL-2.1-or-later",  # FFmpeg
    "libvpx": "BSD-3-Clause",
}


def of_distribution(name: str, metadata: Message) -> str:
    """SPDX expression of a Python distribution: its own, else by what its metadata say, else by BY_DISTRIBUTION.

    Stops with a sentence when none of them tells.
    """
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    named = BY_DISTRIBUTION.get(re.sub(r"[-_.]+", "-", name).lower())
    if named:
        return named
    for words in (metadata["License"] or "", *(metadata.get_all("Classifier") or ())):
        if words in WORDS:
            return WORDS[words]
    raise SystemExit(f"make_deb: the licence of {name} is not known: read it and name it in tools/deb/licences.py")


def of_bundled(file: str) -> str:
    """SPDX expression of a library that a wheel brings along. Stops with a sentence where it is not known."""
    fitting = [begin for begin in BUNDLED if file.startswith(begin)]
    if not fitting:
        raise SystemExit(f"make_deb: the licence of {file} is not known: read it and name it in tools/deb/licences.py")
    return BUNDLED[max(fitting, key=len)]


def of_debian(copyright_file: Path) -> Sequence[str]:
    """Short names in a machine-readable debian/copyright (DEP-5), sorted; none where the file is of another form."""
    try:
        text = copyright_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    if "copyright-format/1" not in text.split("\n\n", 1)[0]:
        return ()
    return sorted({match.strip() for match in re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE)})
