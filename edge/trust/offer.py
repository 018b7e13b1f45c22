"""What a stick offers: the index of bundles (snapshot role) and one bundle (targets role), verified, not yet judged."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.errors import UpdateError
from edge.trust.document import BOUNDS, LARGEST_NUMBER, SnapshotShape, TargetsShape, read_document, refuse, shape
from edge.trust.root import check_signatures, open_root, open_signed

SCHEMA = 1
MOST_FILES = 64
LARGEST_FILE_BYTES = 512 << 20
LARGEST_OFFER_BYTES = 1 << 30  # all files together
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FILE_NAME = re.compile(r"(?=.{1,100}\Z)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")  # no dot at the end: vfat drops it
BOARD = re.compile(r"\*|[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
RELEASE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LABEL_LENGTH = 40
_WORDS_LENGTH = 300
_OWN_NAME = "targets.json"  # lies beside the bundle's files in a slot
_MANIFEST = "manifest.json"
_BOUNDS = {
    **BOUNDS,
    "length": (0, float(1 << 53)),
    "epoch": (0, LARGEST_NUMBER),
    "p95_ms": (1, 3_600_000),
    "memory_bytes": (1, float(1 << 40)),
}


@dataclass(frozen=True)
class Budget:
    """What a board may spend on one study: 95th percentile of the reading time in seconds, peak memory in bytes."""

    p95_s: float
    memory_bytes: int


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle: plain name, size in bytes, sha256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class SnapshotFacts:
    """version: the stick's counter; versions: bundle id -> version of its targets.json."""

    version: int
    versions: Mapping[str, int]


@dataclass(frozen=True)
class Offer:
    """One signed bundle. slot: sha256 of the bytes of targets.json, the name of its folder on the box."""

    slot: str
    id: str
    version: int
    label: str
    epoch: int
    files: tuple[FileEntry, ...]
    manifest_sha256: str
    revokes: tuple[str, ...]
    budgets: dict[str, Budget]
    words: str
    boards: tuple[str, ...]
    needs: str

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class _BudgetBlock:
    p95_ms: int
    memory_bytes: int


@dataclass(frozen=True)
class _Block:
    """The field `radbox` of targets.json. Times are whole milliseconds: canonical JSON has no fractions."""

    schema: int
    id: str
    version: int
    label: str
    epoch: int
    boards: tuple[str, ...]
    needs: str
    manifest_sha256: str
    revokes: tuple[str, ...]
    budgets: dict[str, _BudgetBlock]
    words: str


def verify_snapshot(root: bytes, snapshot: bytes, stored_version: int) -> SnapshotFacts:
    """The index of a stick, signed under `root` and not older than one seen before.

    Raises UpdateError: update.too-large, update.truncated, update.metadata, update.wrong-key,
    update.too-few-signatures, update.replayed; update.root-chain if `root` itself is damaged.
    """
    what = "the stick's index"
    raw = read_document(snapshot, what)
    index = shape(SnapshotShape, raw["signed"], what)
    versions = {name.removesuffix(".json"): line.version for name, line in index.meta.items()}
    if any(not name.endswith(".json") for name in index.meta) or not all(map(IDENTIFIER.fullmatch, versions)):
        refuse(what, "expected names of bundles, got others")
    check_signatures(open_root(root), "snapshot", open_signed(raw, what), what)
    if index.version < stored_version:
        raise UpdateError(
            f"expected a stick at least as new as number {stored_version}, which this box has seen, "
            f"got number {index.version}",
            code="update.replayed",
        )
    return SnapshotFacts(index.version, versions)


def verify_targets(root: bytes, targets: bytes) -> Offer:
    """The bundle that `targets` describes, signed under `root`. No policy: `edge.trust.decide` judges it.

    Raises UpdateError: update.too-large, update.truncated, update.metadata, update.wrong-key,
    update.too-few-signatures, update.schema, update.path, update.too-many-files; update.root-chain if `root` itself
    is damaged.
    """
    what = "the bundle's description"
    raw = read_document(targets, what)
    block = raw["signed"].get("radbox")
    known = {key: value for key, value in raw["signed"].items() if key != "radbox"}
    described = shape(TargetsShape, known, what, _BOUNDS)
    check_signatures(open_root(root), "targets", open_signed(raw, what), what)
    files = _files(described)
    return _offer(hashlib.sha256(targets).hexdigest(), _read_block(block, described, files), files)


def _files(described: TargetsShape) -> tuple[FileEntry, ...]:
    """The files, within bounds and with names that mean one file on any file system a stick may have."""
    if len(described.targets) > MOST_FILES:
        raise UpdateError(
            f"expected at most {MOST_FILES} files, got {len(described.targets)}", code="update.too-many-files"
        )
    files = tuple(FileEntry(name, file.length, file.hashes.sha256) for name, file in sorted(described.targets.items()))
    folded = {file.name.casefold() for file in files}
    if len(folded) != len(files) or _OWN_NAME in folded or not all(FILE_NAME.fullmatch(file.name) for file in files):
        raise UpdateError("expected plain and different file names, got others", code="update.path")
    if any(file.size > LARGEST_FILE_BYTES for file in files) or sum(file.size for file in files) > LARGEST_OFFER_BYTES:
        raise UpdateError(
            f"expected files of at most {LARGEST_FILE_BYTES >> 20} MiB, {LARGEST_OFFER_BYTES >> 20} MiB together, "
            "got more",
            code="update.too-large",
        )
    if not all(_SHA256.fullmatch(file.sha256) for file in files):
        refuse("the bundle's description", "expected a sha256 for every file, got something else")
    return files


def _read_block(block: Any, described: TargetsShape, files: tuple[FileEntry, ...]) -> _Block:
    what = "the bundle's description"
    if isinstance(block, dict) and block.get("schema") != SCHEMA:
        raise UpdateError(
            f"expected a bundle of schema {SCHEMA}, got one made for other software of the box", code="update.schema"
        )
    read = shape(_Block, block, what, _BOUNDS)
    if read.version != described.version:
        refuse(what, "expected one version number, got two")
    if (_MANIFEST, read.manifest_sha256) not in {(file.name, file.sha256) for file in files}:
        refuse(what, "expected the manifest among the files, got none or another")
    named = IDENTIFIER.fullmatch(read.id) and RELEASE.fullmatch(read.needs) and _plain(read.label, _LABEL_LENGTH)
    if not named or not _plain(read.words, _WORDS_LENGTH):
        refuse(what, "expected an id, a label, a lowest version and one sentence of plain text, got something else")
    if not read.boards or not all(BOARD.fullmatch(board) for board in (*read.boards, *read.budgets)):
        refuse(what, "expected names of boards, got something else")
    if not all(_SHA256.fullmatch(one) for one in read.revokes):
        refuse(what, "expected a sha256 for every revoked bundle, got something else")
    return read


def _offer(slot: str, block: _Block, files: tuple[FileEntry, ...]) -> Offer:
    return Offer(
        slot=slot,
        id=block.id,
        version=block.version,
        label=block.label,
        epoch=block.epoch,
        files=files,
        manifest_sha256=block.manifest_sha256,
        revokes=block.revokes,
        budgets={name: Budget(one.p95_ms / 1000, one.memory_bytes) for name, one in block.budgets.items()},
        words=block.words,
        boards=block.boards,
        needs=block.needs,
    )


def _plain(text: str, length: int) -> bool:
    return 0 < len(text) <= length and text.isprintable()
