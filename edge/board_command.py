"""`radbox board`: the shipped board files, their keys and schema, and which of them fits this machine.

Every action gives the text to print and the exit code; the command line prints it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Final

from edge.board import Worker, load_board
from edge.board_files import CHECKOUT, board_path, shipped, shipped_file, summary
from edge.board_keys import SECTIONS
from edge.board_probe import Found, Proposal, look, proposals
from edge.board_probe.propose import unread_parts, unused_parts
from edge.board_rules import GIB
from edge.board_schema import key_table, schema_text
from edge.care.hardware.sysfs import Tree
from edge.durable import write_file
from edge.errors import ConfigError, RadboxError
from edge.toml import load_toml

_NAMED: Final = ("show", "check")


def run(action: str, name: str | None, as_json: bool, write: Path | None, root: Path | None) -> tuple[str, int]:
    """What to print and the exit code. Raises ConfigError (board.*, config.*), RadboxError, StorageError."""
    if (name is not None) != (action in _NAMED):
        wanted = f"expected a name after {' and '.join(_NAMED)} alone"
        raise ConfigError(f"{wanted}, got {action} {name or 'without one'}", code="board.usage")
    if action == "show":
        return shipped_file(str(name)).read_text(encoding="utf-8"), 0
    if action == "check":
        return check(board_path(str(name))), 0
    if action == "probe":
        return probe(root, as_json, write)
    texts = {"list": lambda: listing(as_json), "keys": key_table, "schema": schema_text}
    return texts[action](), 0


def listing(as_json: bool) -> str:
    """Every shipped board with the first line of what it is."""
    boards = {name: summary(path) for name, path in shipped().items()}
    if as_json:
        return json.dumps(boards, indent=1)
    width = max(map(len, boards), default=0)
    return "\n".join(f"{name:{width}s}  {text}" for name, text in boards.items())


def check(path: Path) -> str:
    """A board file that may start a box, in a sentence. Raises ConfigError otherwise."""
    board = load_board(path)
    document = load_toml(path)
    left = [
        f"{section}.{key}".lstrip(".")
        for section, keys in SECTIONS.items()
        for key in keys
        if key not in (document.get(section, {}) if section else document)
    ]
    said = f"{len(left)} keys are left to their defaults: {', '.join(left)}" if left else "it says every key"
    return f"{path.name}: valid, board {board.name!r}; {said}"


def probe(root: Path | None, as_json: bool, write: Path | None) -> tuple[str, int]:
    """Propose a board file for this machine, or for the one whose files lie below `root`; 1 where none fits."""
    found = look(Tree(root) if root else None)
    workers = {name: load_board(path).worker for name, path in shipped().items()}
    made = proposals(found, {name: worker.backends for name, worker in workers.items()})
    best = made[0] if made and made[0].fits else None
    notes = _notes(found, workers[best.board]) if best else ()
    written = _write(best, write) if write else ""
    if as_json:
        said = {
            "proposed": best.board if best else None,
            "notes": notes,
            "boards": [dataclasses.asdict(one) for one in made],
            "found": dataclasses.asdict(found),
        }
        return json.dumps(said, indent=1), int(best is None)
    return "\n".join([*_machine_words(found), *_words(best, made, notes), *([written] if written else [])]), int(
        best is None
    )


def _notes(found: Found, worker: Worker) -> tuple[str, ...]:
    bundle = worker.bundle if worker.bundle.is_dir() else CHECKOUT.parent / "models" / "bundles" / "chest"
    models = {path.name for path in bundle.iterdir()} if bundle.is_dir() else set()
    return (*unread_parts(found, worker.backends, models), *unused_parts(found, worker.backends))


def _machine_words(found: Found) -> list[str]:
    processors = ", ".join(f"{count} x {name}" for name, count in found.processors.items())
    memory = f"{found.memory_bytes / GIB:.1f} GiB" if found.memory_bytes else ""
    facts = [found.model, found.machine, processors, memory, found.system, f"L4T {found.l4t}" if found.l4t else ""]
    return [f"This machine: {', '.join(fact for fact in facts if fact) or 'nothing could be read of it'}"]


def _words(best: Proposal | None, made: tuple[Proposal, ...], notes: tuple[str, ...]) -> list[str]:
    if best is None:
        lines = ["No board file fits. Make one of your own: board_configs/README.md tells how."]
    else:
        lines = [f"Proposed: {best.board}", *_reasons(best), *(f"  note     {note}" for note in notes)]
    others = [one for one in made if one is not best]
    return [*lines, "Others:", *(f"  {one.board}: {_why_not(one)}" for one in others)]


def _reasons(one: Proposal) -> list[str]:
    kinds = (("for", one.speaks_for), ("against", one.speaks_against), ("missing", one.missing))
    return [f"  {kind:8s} {text}" for kind, texts in kinds for text in texts]


def _why_not(one: Proposal) -> str:
    return "fits too, but less speaks for it" if one.fits else "; ".join(one.speaks_against)


def _write(best: Proposal | None, path: Path) -> str:
    """Put the proposed file there; a different one that is there already stays. Raises RadboxError."""
    if best is None:
        raise RadboxError(
            "expected a board file that fits this machine, got none: nothing was written", code="board.none"
        )
    content = shipped_file(best.board).read_bytes()
    if not path.exists():
        write_file(path.absolute(), content)
        return f"Written: {path}"
    if path.read_bytes() != content:
        raise RadboxError(f"expected no other file at {path}, got one: it stays as it is", code="board.exists")
    return f"Already there: {path}"
