"""Update sticks without end for one box: every version newer than the one before, two different bundles in turn."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from edge.trust import Budget
from tools.update.release import Release, snapshot_signed, targets_signed, write_stick
from tools.update.sign import first_root, next_root, sign_document

BUNDLE_ID = "powercut"
NEW_ROOT_EVERY, NEW_EPOCH_EVERY, REVOCATION_EVERY = 6, 8, 5  # versions
REVOKED_BACK = 3  # versions; old enough to be neither in use nor the one before
BUDGETS = {"*": Budget(p95_s=60.0, memory_bytes=3 << 30)}


class Sticks:
    """Makes and signs sticks with keys of its own, in the order of their versions, from 1 on."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        """`folder`: new, ours; `bundle`: the model that every second stick carries as it is."""
        self._folder = folder
        self._bundles = (bundle, _other_bundle(bundle, folder / "other"))
        keys = [CryptoSigner.generate_ed25519() for _ in range(7)]
        self._root_keys, self._release_keys, self._snapshot_key = keys[:3], keys[3:6], keys[6]
        public = {
            "root": [key.public_key for key in self._root_keys],
            "targets": [key.public_key for key in self._release_keys],
            "snapshot": [self._snapshot_key.public_key],
        }
        self._roots = [sign_document(first_root(public), self._root_keys[:2])]
        self._slots: list[str] = []
        self.first_root = folder / "trusted_root.json"
        self.first_root.write_bytes(self._roots[0])

    def slot(self, version: int) -> str:
        """The slot that this version gets on a box."""
        return self._slots[version - 1]

    def path(self, version: int) -> Path:
        """Where the stick of `version` is mounted."""
        return self._folder / str(version)

    def keep(self, first: int, last: int) -> None:
        """Make the sticks from `first` to `last` as far as they are missing, and throw older ones away."""
        while len(self._slots) < last:
            self._make(len(self._slots) + 1)
        for old in range(1, first):
            shutil.rmtree(self.path(old), ignore_errors=True)

    def _make(self, version: int) -> None:
        if version % NEW_ROOT_EVERY == 0:
            self._roots.append(sign_document(next_root(self._roots[-1], {}, []), self._root_keys[:2]))
        revoked = version - REVOKED_BACK
        release = Release(
            id=BUNDLE_ID,
            label=f"0.{version}.0",
            version=version,
            epoch=1 + version // NEW_EPOCH_EVERY,
            revokes=(self.slot(revoked),) if version % REVOCATION_EVERY == 0 and revoked > 0 else (),
            budgets=BUDGETS,
        )
        bundle = self._bundles[version % 2]
        targets = sign_document(targets_signed(release, bundle), self._release_keys[:2])
        index = sign_document(snapshot_signed(version, {BUNDLE_ID: version}), [self._snapshot_key])
        write_stick(self.path(version), self._roots, index, {release.folder: (targets, bundle)})
        self._slots.append(hashlib.sha256(targets).hexdigest())


def _other_bundle(bundle: Path, folder: Path) -> Path:
    """A copy that differs in its card, and so in its manifest."""
    shutil.copytree(bundle, folder)
    card = folder / "card.md"
    card.write_text(card.read_text() + "\nThe other one of two.\n")
    manifest = folder / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"]["card.md"] = hashlib.sha256(card.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))
    return folder
