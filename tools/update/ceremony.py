"""What a release engineer or key holder does in one step: make a release, sign a file that another began."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from edge.bundle import Manifest, load_bundle
from edge.durable import write_file
from edge.errors import ConfigError
from edge.trust import Offer, SnapshotFacts, verify_snapshot, verify_targets
from edge.trust.document import read_document
from tools.update.release import FOLDER, Release, snapshot_signed, targets_signed, write_stick
from tools.update.sign import Count, add_signature, count, sign_document
from tools.update.stick import read_bounded, read_roots

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Before:
    """The release before: its index and its bundles by id."""

    index: SnapshotFacts
    offers: Mapping[str, Offer]


NOTHING_BEFORE = Before(SnapshotFacts(0, {}), {})


def write_release(
    out: Path,
    bundle: Path,
    release: Release,
    before: Before,
    roots: Sequence[bytes],
    signers: Sequence[CryptoSigner],
    snapshot_signer: CryptoSigner,
) -> Path:
    """Sign and write `release` with the files of folder `bundle` to `out`; returns the path of its targets.json there.

    The index keeps the versions of all bundles there were. Raises StorageError; ConfigError for a bundle that the
    release itself, or one before it, called back.
    """
    described = targets_signed(release, bundle)
    if described["radbox"]["manifest_sha256"] in release.revokes:
        raise ConfigError("expected a bundle that is in use, got one that was called back")
    targets = sign_document(described, signers)
    versions = {**before.index.versions, release.id: release.version}
    snapshot = sign_document(snapshot_signed(before.index.version + 1, versions), [snapshot_signer])
    top = write_stick(out, roots, snapshot, {release.folder: (targets, bundle)})
    return top / "bundles" / release.folder / "targets.json"


def open_bundle(folder: Path, trusted_keys: Path) -> Manifest:
    """The manifest of a bundle that a box could load, alone in its folder. Raises BundleError, ConfigError."""
    manifest = load_bundle(folder, trusted_keys).manifest
    extra = sorted({path.name for path in folder.iterdir()} - {*manifest.files, "manifest.json", "manifest.sig"})
    if extra:
        raise ConfigError(f"expected only the bundle's own files in its folder, got {extra[0]!r} too")
    return manifest


def all_revoked(before: Before, more: Sequence[str]) -> tuple[str, ...]:
    """sha256 of everything called back so far and of what --revoke names: also for boxes that missed a release.

    Raises ConfigError, UpdateError.
    """
    revoked = {one for offer in before.offers.values() for one in offer.revokes}
    return tuple(sorted(revoked.union(*(_manifests(what) for what in more))))


def read_release(folder: Path) -> Before:
    """A release made earlier, verified under its own newest root. Raises ConfigError, UpdateError."""
    top = folder / FOLDER
    roots = read_roots(top / "root")
    if not roots:
        raise ConfigError("expected a release with its roots as --previous, got a folder without any")
    index = verify_snapshot(roots[-1], read_bounded(top / "snapshot.json"), 0)
    offers = [verify_targets(roots[-1], path.read_bytes()) for path in sorted(top.glob("bundles/*/targets.json"))]
    return Before(index, {offer.id: offer for offer in offers})


def sign_file(file: Path, roots_folder: Path | None, signer: CryptoSigner) -> list[Count]:
    """Add a signature to `file`; returns how many it has now, for a root under its predecessor and under itself.

    Raises ConfigError if the key has no say in this file, so nobody believes to have signed.
    """
    document = add_signature(file.read_bytes(), signer)
    signed = read_document(document, file.name)["signed"]
    roots = read_roots(roots_folder or _roots_beside(file))
    if signed["_type"] == "root":
        judges = [*roots[max(0, signed["version"] - 2) : signed["version"] - 1], document]
    else:
        judges = roots[-1:]
    if not judges:
        raise ConfigError("expected the roots with --roots, got none")
    counts = [count(document, judge) for judge in judges]
    if not any(signer.public_key.keyid in one.signed for one in counts):
        raise ConfigError(f"expected a key of role {signed['_type']}, got key {signer.public_key.keyid[:12]}")
    write_file(file, document)
    return counts


def describe(document: bytes) -> list[str]:
    """What a signer is about to sign, in lines for the terminal."""
    signed = read_document(document, "the file")["signed"]
    lines = [f"{signed['_type']}, version {signed['version']}"]
    if signed["_type"] == "root":
        lines += [
            f"  {name}: {role['threshold']} of {', '.join(one[:12] for one in role['keyids'])}"
            for name, role in signed["roles"].items()
        ]
    if signed["_type"] == "targets":
        block = signed["radbox"]
        lines += [f"  {name}: {block[name]}" for name in ("id", "label", "epoch", "boards", "needs", "manifest_sha256")]
        lines += [f"  revokes {one}" for one in block["revokes"]]
        lines += [f"  {file['hashes']['sha256']}  {name}" for name, file in signed["targets"].items()]
    if signed["_type"] == "snapshot":
        lines += [f"  {name}: {line['version']}" for name, line in signed["meta"].items()]
    return lines


def _manifests(what: str) -> list[str]:
    """What --revoke names: a sha256, the folder of a bundle, or a stick -> sha256 of manifests. Raises ConfigError.

    By manifest and not by slot: the files are what must not run, under whichever description they come.
    """
    if SHA256.fullmatch(what):
        return [what]
    path = Path(what)
    if (path / FOLDER).is_dir():
        return [offer.manifest_sha256 for offer in read_release(path).offers.values()]
    if (path / "manifest.json").is_file():
        return [hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()]
    raise ConfigError(f"expected a sha256, a bundle or a stick to revoke, got {what!r:.80}")


def _roots_beside(file: Path) -> Path:
    for parent in file.resolve().parents:
        if parent.name == FOLDER:
            return parent / "root"
    return file.parent
