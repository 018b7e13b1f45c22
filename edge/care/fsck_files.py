"""The rows and the files of a data folder side by side. Each check is one function; the order of CHECKS matters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from edge.care.census import object_files
from edge.care.fsck_objects import read_object, sha256_of
from edge.care.fsck_report import Finding
from edge.care.retention import finish_removals
from edge.care.update.stage import collect, sweep
from edge.durable import is_temporary, make_directory, remove
from edge.durable_names import remove_tree, rename
from edge.errors import DicomError
from edge.slot_state import DAMAGED, in_use
from edge.slots import SLOTS, Slots
from edge.store import INCOMING, quarantine_path
from edge.store_check import CheckStore, NamedFile
from edge.store_paths import QUARANTINE, RENDERED

DAMAGED_OBJECT: Final = "storage.object-damaged"
FOUND_OBJECT: Final = "storage.object-found"
_LOST: Final = "an image was lost from the box's disk; send the study again if it is still on the X-ray machine"
_DAMAGED: Final = "an image was damaged on the box's disk and lies in the quarantine; send the study again"


@dataclass
class Scene:
    """What is looked at. repair: put right what can be. busy: services run, leave alone what they may just write.

    hashes: read every byte. alive: called for each object.
    """

    data_dir: Path
    store: CheckStore
    repair: bool
    busy: bool
    hashes: bool
    alive: Callable[[], None]

    @cached_property
    def files(self) -> dict[str, bool]:
        """Files among the objects; False where the name is none of ours."""
        return dict(object_files(self.data_dir))

    @cached_property
    def noted(self) -> frozenset[str]:
        """Paths that wait to be deleted."""
        return frozenset(self.store.removals())

    def finding(self, code: str, found: Collection[object], *, mended: bool | None = None) -> Iterator[Finding]:
        """One finding of so many things, or none."""
        if found:
            yield Finding(code, len(found), self.repair if mended is None else mended)


def removals(scene: Scene) -> Iterator[Finding]:
    """Deletions that a crash interrupted."""
    noted = scene.noted
    if scene.repair:
        finish_removals(scene.data_dir, scene.store)
    yield from scene.finding("fsck.removal-pending", () if scene.busy else noted)


def missing_and_damaged_objects(scene: Scene) -> Iterator[Finding]:
    """Rows whose file is not there, or not what was received."""
    missing, damaged = [], []
    for row in scene.store.objects():
        scene.alive()
        path = scene.data_dir / row.path
        if not path.is_file():
            missing.append(row)
        elif not _is_whole(path, row, scene.hashes):
            damaged.append(row)
    if scene.repair:
        for row in missing:
            scene.store.drop_object(row.path, _LOST)
        for row in damaged:
            _to_quarantine(scene, row.path, DAMAGED_OBJECT, "expected the bytes that were received, got others")
            scene.store.drop_object(row.path, _DAMAGED)
    yield from scene.finding("fsck.object-missing", missing)
    yield from scene.finding("fsck.object-damaged", damaged)


def unknown_objects(scene: Scene) -> Iterator[Finding]:
    """Files without a row: a crash came between the two, and nobody was told that they are here."""
    named = {row.path for row in scene.store.objects()} | scene.noted
    gone = {path for path in scene.files if not (scene.data_dir / path).is_file()}
    unknown = [path for path, ours in scene.files.items() if ours and path not in named | gone]
    strange = [path for path, ours in scene.files.items() if not ours and not is_temporary(Path(path))]
    if scene.repair:
        touched = set()
        for path in unknown:
            scene.alive()
            touched |= _adopt(scene, path)
        for study_key in touched:
            scene.store.complete_study(study_key)
    yield from scene.finding("fsck.object-unknown", () if scene.busy else unknown)
    yield from scene.finding("fsck.strange-file", strange, mended=False)


def _adopt(scene: Scene, path: str) -> set[int]:
    try:
        if scene.hashes and sha256_of(scene.data_dir / path) != Path(path).stem:
            raise DicomError("expected the bytes that the file's name says, got others", code=DAMAGED_OBJECT)
        added = scene.store.add_instances([read_object(scene.data_dir, path)])
    except DicomError as error:
        _to_quarantine(scene, path, error.code, error.message)
        return set()
    return {added[0].study_key}


def _to_quarantine(scene: Scene, path: str, code: str, message: str) -> None:
    file = scene.data_dir / path
    sha256, size = sha256_of(file), file.stat().st_size
    final = quarantine_path(sha256)
    make_directory((scene.data_dir / final).parent)
    rename(file, scene.data_dir / final)
    scene.store.add_quarantine(sha256, size, str(final), code, message, "")


def _is_whole(path: Path, row: NamedFile, hashes: bool) -> bool:
    return path.stat().st_size == row.size_bytes and (not hashes or sha256_of(path) == row.sha256)


def temporary_files(scene: Scene) -> Iterator[Finding]:
    """Files that were never finished."""
    if scene.busy:
        return
    folders = [scene.data_dir, scene.data_dir / QUARANTINE, *_below(scene.data_dir / INCOMING.parent)]
    folders += [*_below(scene.data_dir / RENDERED), scene.data_dir / "update"]
    files = (path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file())
    found = [path for path in files if is_temporary(path)]
    for path in found if scene.repair else ():
        remove(path)
    yield from scene.finding("fsck.temporary-file", found)


def _below(folder: Path) -> list[Path]:
    return [folder, *(path for path in folder.rglob("*") if path.is_dir())]


def renderings(scene: Scene) -> Iterator[Finding]:
    """Folders of pictures without a reading, and readings without their folder."""
    rows = scene.store.renderings()
    missing = [row for row in rows if row.path not in scene.noted and not (scene.data_dir / row.path).is_dir()]
    for row in missing if scene.repair else ():
        scene.store.drop_rendering(row)
    yield from scene.finding("fsck.rendering-missing", missing)
    named = {row.path for row in rows} | scene.noted
    folders = [path for path in (scene.data_dir / RENDERED).glob("*/*") if path.is_dir()]
    unknown = [path for path in folders if str(path.relative_to(scene.data_dir)) not in named]
    for path in unknown if scene.repair else ():
        remove_tree(path)
        if not any(path.parent.iterdir()):
            remove_tree(path.parent)
    yield from scene.finding("fsck.rendering-unknown", () if scene.busy else unknown)


def quarantine(scene: Scene) -> Iterator[Finding]:
    """Rows and files of the quarantine."""
    rows = scene.store.quarantined()
    missing = [row for row in rows if not (scene.data_dir / row.path).is_file()]
    named = {row.path for row in rows} | scene.noted
    folder = scene.data_dir / QUARANTINE
    files = [path for path in folder.iterdir() if path.is_file() and not is_temporary(path)] if folder.is_dir() else []
    unknown = [path for path in files if str(path.relative_to(scene.data_dir)) not in named]
    if scene.repair:
        for row in missing:
            scene.store.drop_quarantined(row.path)
        for path in unknown:
            _to_quarantine(scene, str(path.relative_to(scene.data_dir)), FOUND_OBJECT, "the reason was lost in a crash")
    yield from scene.finding("fsck.quarantine-missing", missing)
    yield from scene.finding("fsck.quarantine-unknown", () if scene.busy else unknown)


def slots(scene: Scene) -> Iterator[Finding]:
    """What an interrupted update left."""
    folder = scene.data_dir / SLOTS
    if scene.busy or not folder.is_dir():
        return
    state = Slots(scene.data_dir, Path()).read()
    if state.last and state.last.code == DAMAGED:
        return  # what is in use cannot be told
    keep = in_use(state)
    left = [path for path in folder.iterdir() if path.is_dir() and path.name not in keep]
    if scene.repair:
        sweep(folder)
        collect(scene.data_dir, frozenset(keep))
    yield from scene.finding("fsck.update-left", left)


def signatures(scene: Scene) -> Iterator[Finding]:
    """Signed reports against the sha256 that was stored beside them."""
    if count := scene.store.damaged_signatures():
        yield Finding("fsck.signature-damaged", count)


CHECKS: Final = (
    removals,
    missing_and_damaged_objects,
    unknown_objects,
    temporary_files,
    renderings,
    quarantine,
    slots,
    signatures,
)
AFTER_A_REBUILD: Final = (unknown_objects, quarantine)
