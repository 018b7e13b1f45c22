"""Sign a bundle's manifest with an Ed25519 key that is kept outside the checkout.

    python -m models.sign BUNDLE_DIR

takes over the finding graph as it stands now and the files as they are, and signs. Only for changes of graph.toml
that leave findings, sides and zones alone; otherwise the decoder needs training.

The key file is named by RADBOX_SIGNING_KEY (default ~/.radbox/signing.key) and made on first use; its public half
must be a line of `edge/trusted_keys.txt`. Organisation-grade keys and rotation belong to the update tool.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundle import TRUSTED_KEYS, Manifest, parse_manifest
from edge.report.graph import load_graph


def write_manifest(manifest: Manifest, bundle: Path) -> None:
    """Hash every file beside it, write manifest.json and sign it."""
    names = sorted(p.name for p in bundle.iterdir() if p.name not in ("manifest.json", "manifest.sig"))
    document = asdict(manifest)
    document["files"] = {n: hashlib.sha256((bundle / n).read_bytes()).hexdigest() for n in names}
    (bundle / "manifest.json").write_text(json.dumps(document, indent=1) + "\n")
    sign_bundle(bundle)


def sign_bundle(bundle: Path) -> None:
    """Write manifest.sig; adds the public key to the trusted keys if it is not there."""
    key = _key(Path(os.environ.get("RADBOX_SIGNING_KEY", Path.home() / ".radbox" / "signing.key")))
    (bundle / "manifest.sig").write_bytes(key.sign((bundle / "manifest.json").read_bytes()))
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    line = base64.b64encode(public).decode()
    trusted = TRUSTED_KEYS.read_text() if TRUSTED_KEYS.exists() else "# Ed25519 public keys that may sign a bundle\n"
    if line not in trusted:
        TRUSTED_KEYS.write_text(f"{trusted}{line}  # factory\n")
        print("added to edge/trusted_keys.txt:", line)


def _key(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        raw = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        path.touch(mode=0o600)
        path.write_bytes(raw)
    return Ed25519PrivateKey.from_private_bytes(path.read_bytes())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    old = parse_manifest((folder / "manifest.json").read_bytes())
    write_manifest(replace(old, graph_sha256=load_graph().sha256), folder)
