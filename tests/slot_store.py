"""Signed models in the slots of a box, as an update leaves them."""

from __future__ import annotations

import json
import shutil
from typing import Any

from edge import trust
from edge.board import Board
from tests.update_stick import BUDGETS, Organisation
from tools.update.release import Release


def add_slot(
    board: Board,
    office: Organisation,
    version: int,
    change: dict[str, Any] | None = None,
    words: str = "Sees small things better.",
) -> str:
    """The factory's model with another manifest, for which only targets.json vouches; returns the name of its slot."""
    slots = board.data_dir / "slots"
    slots.mkdir(parents=True, exist_ok=True)
    bundle = slots / ".made"
    shutil.copytree(board.worker.bundle, bundle)
    (bundle / "manifest.sig").unlink()
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest.update(version=f"0.{version}.0", **(change or {}))
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    release = Release(id="chest", label=f"0.{version}", version=version, budgets=BUDGETS, words=words)
    targets = office.targets(bundle, release)
    slot = trust.verify_targets(office.root, targets).slot
    bundle.rename(slots / slot)
    (slots / slot / "targets.json").write_bytes(targets)
    return slot
