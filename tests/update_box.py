"""A box that takes updates, made new for each test: a real board, store and slots, and somebody who signs for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.board import Board, load_board
from edge.care.update.install import install, slots_of
from edge.care.update.outcome import Result
from edge.slots import Slots, SlotState
from edge.store import Store, open_store
from edge.trust import root as trust_root
from tests.update_stick import Organisation, make_organisation

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "models" / "bundles" / "chest"
ID = "chest-xray-pyramid"
VERSION = str(json.loads((BUNDLE / "manifest.json").read_text())["version"])
"""Of the shipped bundle."""


@dataclass
class Box:
    """board.data_dir lies in a temporary folder; the factory's bundle is the shipped one."""

    board: Board
    store: Store
    organisation: Organisation

    @property
    def slots(self) -> Slots:
        """As every process of the box makes them."""
        return slots_of(self.board)

    @property
    def state(self) -> SlotState:
        """What state.json says now."""
        return self.slots.read()

    def install(self, stick: Path) -> Result:
        """Install the update below the folder that holds EDGE-UPDATE."""
        return install(self.board, self.store, stick)

    def codes(self) -> list[str]:
        """Codes of the events, newest first."""
        return [event.code for event in self.store.events()]


def sim_board(data_dir: Path) -> Board:
    """The simulated box with another data folder."""
    return dataclasses.replace(load_board(ROOT / "board_configs" / "sim.toml"), data_dir=data_dir)


@contextmanager
def open_box(data_dir: Path, organisation: Organisation) -> Iterator[Box]:
    """A box that was built with the organisation's first root."""
    data_dir.mkdir(exist_ok=True)
    board = sim_board(data_dir)
    store = open_store(data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust_root, "FACTORY_ROOT", organisation.root_file)
        try:
            yield Box(board, store, organisation)
        finally:
            store.close()


def new_organisation(folder: Path) -> Organisation:
    """Keys and a first root in a folder that is made."""
    folder.mkdir(parents=True)
    return make_organisation(folder)


def changed_bundle(folder: Path, **files: bytes) -> Path:
    """The shipped bundle with other contents of some files ("encoder_onnx" for encoder.onnx), hashes right."""
    shutil.copytree(BUNDLE, folder)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
