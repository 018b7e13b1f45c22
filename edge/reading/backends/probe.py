"""Child process: load one backend, run the golden case, say how it went.

    python -m edge.reading.backends.probe NAME BUNDLE_DIR MANIFEST_SHA256 SETUP

The parent has verified who vouches for the bundle; the child verifies that it is that bundle, every file of it.
Exit 0 when it passed; otherwise 1 and one line "code message" on standard output, where nothing else is let: makers'
libraries print too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge.bundle import load_bundle
from edge.errors import RadboxError
from edge.reading.backends import load_backend
from edge.reading.backends.golden import check_golden
from edge.reading.backends.own_output import own_output
from edge.reading.backends.setup import setup_from_json


def main(name: str, bundle_path: str, manifest_sha256: str, setup: str) -> int:
    """See the module docstring."""
    out = own_output()
    try:
        bundle = load_bundle(Path(bundle_path), trusted_manifest_sha256=manifest_sha256)
        encoder = load_backend(name, bundle, setup_from_json(setup))
        check_golden(encoder.run, encoder.emission, bundle)
    except RadboxError as error:
        os.write(out, f"{error.code} {error.message}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
