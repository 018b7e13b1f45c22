"""USB sticks as files: FAT32 in one partition, written with mtools; images and a DICOMDIR, or a signed update."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from edge.simulate.objects import encode_file, phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.trust import Budget
from tools.image.gpt import ALIGN_BYTES, SECTOR_BYTES
from tools.image.rootfs import run
from tools.update.release import FOLDER, Release, snapshot_signed, targets_signed, write_stick
from tools.update.sign import first_root, sign_document

STICK_BYTES: Final = 256 << 20
FAT32: Final = 0x0C  # MBR partition type, with LBA
UPDATE_ID: Final = "vm-test"
BUDGETS: Final = {"*": Budget(p95_s=600.0, memory_bytes=3 << 30)}  # an emulated processor is slow


@dataclass(frozen=True)
class Update:
    """A stick with a signed model, and the root of those who signed it, which the box must have been built with."""

    image: Path
    root: bytes
    manifest_sha256: str


def study_file(folder: Path, seed: int, patient: str = "VM-0") -> Path:
    """One computed chest as a DICOM file, made once; each seed is a study of its own."""
    path = folder / f"study-{seed}.dcm"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        phantom = make_phantom(PhantomOptions(seed=seed))
        path.write_bytes(encode_file(phantom_dataset(phantom, patient_id=f"{patient}-{seed}")))
    return path


def image_stick(out: Path, work: Path, files: Sequence[Path]) -> Path:
    """A stick as a hospital hands it out: images in a folder, a DICOMDIR that lists them, and something else."""
    top = _empty(work)
    (top / "DICOM").mkdir()
    for number, file in enumerate(files):
        shutil.copy(file, top / "DICOM" / f"IM{number:06d}")
    # dcmmkdir names the files that it takes relative to where it is started.
    run("dcmmkdir", "--general-purpose", "+I", "+r", "DICOM", "+D", "DICOMDIR", cwd=top)
    (top / "README.TXT").write_text("Images of a computed chest.\n")
    return _write(out, top)


def update_stick(out: Path, work: Path, bundle: Path) -> Update:
    """A stick that `tools/make_update` would write, signed with new keys: this model, its card changed."""
    top = _empty(work)
    changed = _changed(bundle, work / "bundle")
    keys = [CryptoSigner.generate_ed25519() for _ in range(7)]
    roles = {"root": keys[:3], "targets": keys[3:6], "snapshot": keys[6:]}
    public = {role: [key.public_key for key in held] for role, held in roles.items()}
    root = sign_document(first_root(public), keys[:2])
    words = "Made by the VM tests."
    release = Release(id=UPDATE_ID, label="9.9.9", version=1, needs="0.0.1", budgets=BUDGETS, words=words)
    targets = sign_document(targets_signed(release, changed), keys[3:5])
    index = sign_document(snapshot_signed(1, {UPDATE_ID: 1}), [keys[6]])
    write_stick(top, [root], index, {release.folder: (targets, changed)})
    return Update(_write(out, top), root, hashlib.sha256((changed / "manifest.json").read_bytes()).hexdigest())


def read_back(stick: Path, work: Path) -> list[str]:
    """Names in the outbox of a stick: what a box left on it."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run("mcopy", "-s", "-n", "-i", f"{stick}@@{ALIGN_BYTES}", f"::{FOLDER}/outbox", work)
    return sorted(path.name for path in (work / "outbox").iterdir())


def _empty(work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    (work / "top").mkdir(parents=True)
    return work / "top"


def _changed(bundle: Path, folder: Path) -> Path:
    shutil.copytree(bundle, folder)
    with (folder / "card.md").open("a") as card:
        card.write("\nOf the VM tests.\n")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["card.md"] = hashlib.sha256((folder / "card.md").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _write(out: Path, top: Path) -> Path:
    """`top` as the only partition of a stick."""
    part = out.with_suffix(".part")
    with part.open("wb") as stream:
        stream.truncate(STICK_BYTES - ALIGN_BYTES)
    run("mkfs.vfat", "-F", "32", "-n", "STICK", part)
    run("mcopy", "-s", "-i", part, *sorted(top.iterdir()), "::")
    first, count = ALIGN_BYTES // SECTOR_BYTES, (STICK_BYTES - ALIGN_BYTES) // SECTOR_BYTES
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", FAT32, b"\xfe\xff\xff", first, count)
    with out.open("wb") as stream:
        stream.write((b"\0" * 446 + entry).ljust(510, b"\0") + b"\x55\xaa")
    run("dd", f"if={part}", f"of={out}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    with out.open("r+b") as stream:
        stream.truncate(STICK_BYTES)
    part.unlink()
    return out
