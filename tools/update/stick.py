"""Reading a stick or a folder of roots on the signing side, and verifying a stick as a box would."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge.errors import UpdateError
from edge.trust import (
    LARGEST_METADATA_BYTES,
    Offer,
    SnapshotFacts,
    Trusted,
    after_roots,
    decide,
    verify_roots,
    verify_snapshot,
    verify_targets,
)
from tools.update.release import CHUNK_BYTES, FOLDER


@dataclass(frozen=True)
class Checked:
    """A stick that verifies. roots: the newer ones than the box's."""

    roots: tuple[bytes, ...]
    index: SnapshotFacts
    offers: tuple[Offer, ...]


def read_roots(folder: Path) -> list[bytes]:
    """n.root.json of `folder` in the order of n, from 1 on without a gap."""
    roots: list[bytes] = []
    while (path := folder / f"{len(roots) + 1}.root.json").is_file():
        roots.append(path.read_bytes())
    return roots


def read_bounded(path: Path) -> bytes:
    """A metadata file, at most one byte more than is allowed. Raises UpdateError update.no-update if there is none."""
    if not path.is_file():
        raise UpdateError(f"expected {path.name} on the stick, got none", code="update.no-update")
    with path.open("rb") as stream:
        return stream.read(LARGEST_METADATA_BYTES + 1)


def check_stick(stick: Path, box: Trusted, board: str | None, radbox_version: str) -> Checked:
    """Verify `stick` (the folder that holds EDGE-UPDATE) as a box that knows `box` does.

    board: None asks for every board, leaving out the rule for boards and for the box's software.
    Raises UpdateError with the code the box would show.
    """
    top = stick / FOLDER
    newer = verify_roots(box.root, read_roots(top / "root"))
    box = after_roots(box, newer)
    index = verify_snapshot(box.root, read_bounded(top / "snapshot.json"), box.snapshot_version)
    offers = []
    for folder in sorted(path for path in (top / "bundles").glob("*") if path.is_dir()):
        offer = verify_targets(box.root, read_bounded(folder / "targets.json"))
        decide(box, index, offer, board or offer.boards[0], radbox_version if board else offer.needs)
        _check_files(folder / "files", offer)
        offers.append(offer)
    if not offers:
        raise UpdateError("expected a bundle on the stick, got none", code="update.no-update")
    return Checked(newer, index, tuple(offers))


def _check_files(folder: Path, offer: Offer) -> None:
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    extra = set(found) - {file.name for file in offer.files}
    if extra:
        raise UpdateError(f"expected only the files of the bundle, got {len(extra)} more", code="update.extra-file")
    for file in offer.files:
        path = found.get(file.name)
        if path is None or path.is_symlink() or path.stat().st_size < file.size:
            raise UpdateError(f"expected the whole of {file.name}, got less", code="update.truncated")
        if _sha256(path, file.size) != file.sha256:
            raise UpdateError(f"expected {file.name} as it was signed, got other content", code="update.file-changed")


def _sha256(path: Path, size: int) -> str:
    """Of at most `size` + 1 bytes: a file that is longer can only differ."""
    digest, left = hashlib.sha256(), size + 1
    with path.open("rb") as stream:
        while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
