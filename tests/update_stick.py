"""An organisation that signs updates, made new for each test: keys, roots and sticks (also wrong ones, on purpose)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from edge.trust import Budget, Trusted, verify_targets
from tools.update.release import Release, snapshot_signed, targets_signed, write_stick
from tools.update.sign import first_root, next_root, sign_document

BUDGETS = {"*": Budget(p95_s=60.0, memory_bytes=2 << 30)}


@dataclass
class Organisation:
    """Three root keys, three release keys (two of each sign) and one snapshot key. `roots` grows with `rotate`."""

    folder: Path
    root_keys: list[CryptoSigner]
    release_keys: list[CryptoSigner]
    snapshot_key: CryptoSigner
    roots: list[bytes] = field(default_factory=list)

    @property
    def root(self) -> bytes:
        """The newest root."""
        return self.roots[-1]

    @property
    def root_file(self) -> Path:
        """The first root as a file, as a box would be built with."""
        path = self.folder / "trusted_root.json"
        path.write_bytes(self.roots[0])
        return path

    def targets(self, bundle: Path, release: Release, signers: Sequence[CryptoSigner] | None = None) -> bytes:
        """Bytes of a targets.json, signed by the first two release keys unless others are named."""
        return sign_document(targets_signed(release, bundle), self.release_keys[:2] if signers is None else signers)

    def snapshot(self, version: int, versions: Mapping[str, int], signer: CryptoSigner | None = None) -> bytes:
        """Bytes of a snapshot.json."""
        return sign_document(snapshot_signed(version, versions), [signer or self.snapshot_key])

    def rotate(
        self,
        add: Mapping[str, Sequence[CryptoSigner]],
        drop: Sequence[CryptoSigner],
        signers: Sequence[CryptoSigner],
    ) -> bytes:
        """Append the next root. add: "root", "targets", "snapshot" -> keys that join; signers: who signs it."""
        public = {role: [signer.public_key for signer in keys] for role, keys in add.items()}
        signed = next_root(self.root, public, [signer.public_key.keyid for signer in drop])
        self.roots.append(sign_document(signed, signers))
        return self.root

    def stick(
        self,
        path: Path,
        bundle: Path,
        version: int = 1,
        epoch: int = 1,
        boards: Sequence[str] = ("*",),
        *,
        id: str = "tiny",
        label: str | None = None,
        needs: str = "0.0.1",
        revokes: Sequence[str] = (),
        budgets: Mapping[str, Budget] | None = None,
        words: str = "Sees small things better.",
        snapshot_version: int | None = None,
        listed_version: int | None = None,
        signers: Sequence[CryptoSigner] | None = None,
        snapshot_signer: CryptoSigner | None = None,
        roots: Sequence[bytes] | None = None,
    ) -> Path:
        """Write a stick below `path` with the files of folder `bundle`; returns its EDGE-UPDATE folder.

        signers: of the targets document (first two release keys); snapshot_version: counter of the stick (default
        `version`); listed_version: what its index says of the bundle (default `version`).
        """
        release = Release(
            id=id,
            label=label or f"0.{version}.0",
            version=version,
            epoch=epoch,
            boards=tuple(boards),
            needs=needs,
            revokes=tuple(revokes),
            budgets=BUDGETS if budgets is None else budgets,
            words=words,
        )
        targets = self.targets(bundle, release, signers)
        listed = {id: version if listed_version is None else listed_version}
        index = self.snapshot(version if snapshot_version is None else snapshot_version, listed, snapshot_signer)
        return write_stick(path, roots or self.roots, index, {release.folder: (targets, bundle)})


def make_organisation(folder: Path) -> Organisation:
    """New keys and a first root (2 of 3 for roots and models)."""
    keys = [CryptoSigner.generate_ed25519() for _ in range(7)]
    organisation = Organisation(folder, keys[:3], keys[3:6], keys[6])
    public = {
        "root": [key.public_key for key in keys[:3]],
        "targets": [key.public_key for key in keys[3:6]],
        "snapshot": [keys[6].public_key],
    }
    organisation.roots.append(sign_document(first_root(public), keys[:2]))
    return organisation


def small_bundle(folder: Path, content: bytes = b"weights") -> Path:
    """A folder of three small files that trust can describe; no model that could be loaded."""
    folder.mkdir(parents=True)
    (folder / "encoder.onnx").write_bytes(content)
    (folder / "card.md").write_text("A very small model.\n")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    manifest = {"schema": 1, "id": "tiny", "version": "0.1.0", "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def new_box(root: bytes) -> Trusted:
    """What a box knows that was never updated."""
    return Trusted(root=root, snapshot_version=0, epoch=0, versions={}, revoked=frozenset())


def slot_of(stick: Path, root: bytes) -> str:
    """The slot of the only bundle of a stick (its EDGE-UPDATE folder)."""
    (targets,) = stick.glob("bundles/*/targets.json")
    return verify_targets(root, targets.read_bytes()).slot


def resign(document: bytes, signers: Sequence[CryptoSigner], **changes: Any) -> bytes:
    """`document` with top-level changes of its signed part, signed anew: for content that no tool would write."""
    return sign_document({**json.loads(document)["signed"], **changes}, signers)


def signed_bundle(folder: Path, label: str = "0.1.0") -> Path:
    """A small bundle that `load_bundle` opens with the keys in the file beside it, `trusted_keys.txt`."""
    like = Path(__file__).parent.parent / "models" / "bundles" / "chest" / "manifest.json"
    folder.mkdir(parents=True)
    (folder / "card.md").write_text(f"A very small model, {label}.\n")
    files = {"card.md": hashlib.sha256((folder / "card.md").read_bytes()).hexdigest()}
    manifest = {**json.loads(like.read_text()), "id": "tiny", "version": label, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    key = Ed25519PrivateKey.generate()
    (folder / "manifest.sig").write_bytes(key.sign((folder / "manifest.json").read_bytes()))
    with (folder.parent / "trusted_keys.txt").open("a") as stream:
        stream.write(base64.b64encode(key.public_key().public_bytes_raw()).decode() + "\n")
    return folder
