"""A release as a stick: what its documents say, and the order in which everything is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.durable import DurableFile, make_directory, write_file
from edge.trust import Budget
from tools.update.sign import FAR_AWAY, SPEC_VERSION

FOLDER = "EDGE-UPDATE"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Release:
    """What a release says of itself beside its files. id, label: of the bundle; version: counter of this id."""

    id: str
    label: str
    version: int
    epoch: int = 1
    boards: tuple[str, ...] = ("*",)
    needs: str = "0.1.0"
    revokes: tuple[str, ...] = ()
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    words: str = "A new version of the model."

    @property
    def folder(self) -> str:
        """Name of its folder under bundles/."""
        return f"{self.id}-{self.version}"


def targets_signed(release: Release, bundle: Path) -> dict[str, Any]:
    """Signed part of targets.json for the files of folder `bundle`, which has a manifest.json."""
    files = {path.name: path for path in sorted(bundle.iterdir()) if path.is_file()}
    digests = {name: _sha256(path) for name, path in files.items()}
    return {
        "_type": "targets",
        "spec_version": SPEC_VERSION,
        "version": release.version,
        "expires": FAR_AWAY,
        "targets": {
            name: {"length": path.stat().st_size, "hashes": {"sha256": digests[name]}} for name, path in files.items()
        },
        "radbox": {
            "schema": 1,
            "id": release.id,
            "version": release.version,
            "label": release.label,
            "epoch": release.epoch,
            "boards": list(release.boards),
            "needs": release.needs,
            "manifest_sha256": digests["manifest.json"],
            "revokes": list(release.revokes),
            "budgets": {
                board: {"p95_ms": round(budget.p95_s * 1000), "memory_bytes": budget.memory_bytes}
                for board, budget in release.budgets.items()
            },
            "words": release.words,
        },
    }


def snapshot_signed(version: int, versions: Mapping[str, int]) -> dict[str, Any]:
    """Signed part of snapshot.json. version: of the stick; versions: bundle id -> version of its targets.json."""
    return {
        "_type": "snapshot",
        "spec_version": SPEC_VERSION,
        "version": version,
        "expires": FAR_AWAY,
        "meta": {f"{name}.json": {"version": one} for name, one in versions.items()},
    }


def write_stick(
    stick: Path, roots: Sequence[bytes], snapshot: bytes, bundles: Mapping[str, tuple[bytes, Path]]
) -> Path:
    """Write EDGE-UPDATE below `stick` and return it. bundles: folder name -> (targets.json, folder of its files).

    Roots and bundles of an older release are removed, the outbox stays. The index comes last: a stick that was pulled
    out too early has none, and is no update.
    """
    top = stick / FOLDER
    (top / "snapshot.json").unlink(missing_ok=True)
    for old in ("bundles", "root"):
        if (top / old).exists():
            shutil.rmtree(top / old)
        make_directory(top / old)
    make_directory(top / "outbox")
    for root in roots:
        write_file(top / "root" / f"{json.loads(root)['signed']['version']}.root.json", root)
    for name, (targets, bundle) in bundles.items():
        files = top / "bundles" / name / "files"
        make_directory(files)
        for file in json.loads(targets)["signed"]["targets"]:
            _copy(bundle / file, files / file)
        write_file(top / "bundles" / name / "targets.json", targets)
    write_file(top / "snapshot.json", snapshot)
    return top


def _copy(source: Path, target: Path) -> None:
    file = DurableFile(target.parent)
    try:
        with source.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                file.write(chunk)
        file.commit(target)
    finally:
        file.discard()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
