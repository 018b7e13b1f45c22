"""Key files: an Ed25519 private key (PKCS #8 PEM, encrypted with a passphrase) and beside it its public half (JSON)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from edge.errors import ConfigError

PRIVATE, PUBLIC = ".key", ".pub"
AskPassphrase = Callable[[Path], bytes]


def keys_folder() -> Path:
    """Where keys live by default, outside every checkout: $RADBOX_KEYS or ~/.radbox/update-keys."""
    return Path(os.environ.get("RADBOX_KEYS", Path.home() / ".radbox" / "update-keys"))


def make_key(path: Path, passphrase: bytes) -> str:
    """Write a new private key to `path` (.key, mode 0600) and its public half beside it (.pub); returns its keyid.

    An empty passphrase leaves the file unencrypted. Raises ConfigError if a key is there already.
    """
    if path.suffix != PRIVATE:
        raise ConfigError(f"expected a key file to end in {PRIVATE}, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = CryptoSigner.generate_ed25519()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    private = load_pem_private_key(signer.private_bytes, None)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"expected no key in {path.name!r} yet, got one: keys are never overwritten") from error
    with os.fdopen(handle, "wb") as stream:
        stream.write(pem)
        stream.flush()
        os.fsync(stream.fileno())
    public = signer.public_key
    document = {"keyid": public.keyid, **public.to_dict()}
    path.with_suffix(PUBLIC).write_text(json.dumps(document, indent=1) + "\n")
    return str(public.keyid)


def load_signer(path: Path, ask: AskPassphrase) -> CryptoSigner:
    """The private key in `path`; `ask` is called only if the file is encrypted. Raises ConfigError."""
    try:
        pem = path.read_bytes()
        encrypted = b"ENCRYPTED PRIVATE KEY" in pem
        return CryptoSigner(load_pem_private_key(pem, ask(path) if encrypted else None))
    except OSError as error:
        raise ConfigError(f"expected a private key in {path.name!r}, got: {os.strerror(error.errno or 0)}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"expected an Ed25519 key and its passphrase for {path.name!r}, got others") from error


def load_public(path: Path) -> SSlibKey:
    """The public key in `path` (.pub). Raises ConfigError."""
    try:
        document = json.loads(path.read_text())
        keyid = document.pop("keyid")
        key = SSlibKey.from_dict(keyid, document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"expected a public key in {path.name!r}, got something else") from error
    if key.keytype != "ed25519":
        raise ConfigError(f"expected an Ed25519 key in {path.name!r}, got {key.keytype}")
    return key
