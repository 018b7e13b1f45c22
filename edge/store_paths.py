"""Where things lie under the data folder, what opens the database, and which boot this is."""

from __future__ import annotations

import os
from pathlib import Path

DATABASE = Path("radbox.sqlite3")
INCOMING = Path("spool", "incoming")
OBJECTS = Path("spool", "objects")
QUARANTINE = Path("quarantine")
RENDERED = Path("rendered")
RESERVE = Path("reserve.bin")  # room that is given back when the database finds none
DAMAGED = Path("radbox.damaged")  # there while the database is known to be damaged, or under repair
LOCK = Path("radbox.lock")  # shared around every use of the database, alone while it is repaired
RESTORING = Path(".restore", "whole")  # there while a verified backup is moved to its places
KEPT_ASIDE = Path("damaged")  # damaged databases, each in a folder of its own, never deleted
KEY_CREDENTIAL = "radbox-db-key"  # systemd LoadCredential= or SetCredential=


def object_path(sha256: str) -> Path:
    """Where an accepted object lies, relative to the data folder."""
    return Path("spool", "objects", sha256[:2], f"{sha256}.dcm")


def quarantine_path(sha256: str) -> Path:
    """Where refused bytes lie, relative to the data folder."""
    return Path("quarantine", f"{sha256}.bin")


def rendered_path(study_key: int, attempt: int) -> Path:
    """The folder of one reading's images, relative to the data folder."""
    return Path("rendered", str(study_key), str(attempt))


def database_key() -> bytes | None:
    """The at-rest key that systemd hands every service of the box, or None where the board has none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, KEY_CREDENTIAL) if folder else None
    return path.read_bytes() if path and path.exists() else None


def boot_id() -> str:
    """Names this boot: monotonic times of two boots do not compare."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
