"""What a disk may hold after a crash: the calls recorded so far, and which of their effects were durable.

The model is the stricter reading of POSIX, as in "All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014):
bytes are durable only after fsync of their file, a name only after fsync of its folder, and everything else pending is
kept or lost, each for itself. What is taken as given: one change of a name is atomic, and so is a rename within one
folder; a rename into another folder shows the old name, the new one or both, never neither. An fsync of the old folder
makes the whole rename durable (its journal entry names both), an fsync of the new one only the new name.
Order "ext4" keeps changes of names in their order (one journal; any fsync commits all of them) and leaves the bytes
of files without fsync as free as above.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.crash.trace import Call, Kind

SECTOR_BYTES: Final = 512  # what a disk writes whole
SHARED_MEMORY: Final = "-shm"  # SQLite's index of its log: rebuilt, and gone after a power cut


@dataclass(frozen=True, eq=False)
class Effect:
    """One change that a crash may lose. Of bytes (`at`, `content`), of a size, or of a name in a folder.

    `node`: the file or folder it is pending on. `also`: another folder whose fsync makes it durable too.
    """

    number: int
    node: int
    at: int = 0
    content: bytes | None = None
    size: int | None = None
    name: str | None = None
    target: int | None = None  # the node under `name`, None: no such name
    second: tuple[str, int | None] | None = None  # of a rename within one folder: changes with `name`, or not at all
    needs: int | None = None  # number of the effect without which this one cannot have happened
    also: int | None = None

    @property
    def is_name(self) -> bool:
        """Whether it changes a folder rather than a file."""
        return self.name is not None


@dataclass
class Node:
    """A file, folder or symbolic link, and what is durable of it."""

    kind: str  # "file", "folder", "link"
    content: bytes = b""
    names: dict[str, int] = field(default_factory=dict)
    version: int = 0  # of what is durable


Variant = Mapping[int, "Part"]  # effect number -> what is kept of it, where that is neither all nor nothing


@dataclass(frozen=True)
class Part:
    """Part of a write: these bytes of it reached the disk, the rest reads as before. None: only its size did."""

    ranges: tuple[tuple[int, int], ...] = ()


class Disk:
    """Replays calls one by one; `pending` are the effects that a crash now may lose, in order."""

    def __init__(self, root: Path) -> None:
        """Start from the durable content of the folder `root`, which must be as it was when recording began."""
        self.nodes: dict[int, Node] = {}
        self.pending: list[Effect] = []
        self._live: dict[int, dict[str, int]] = {}  # the names as running processes see them
        self._inodes: dict[int, int] = {}
        self._count = 0
        self._ignored: set[int] = set()
        self.top = self._read(root)
        self._hashes: dict[tuple[object, ...], str] = {}
        self._busy: set[int] | None = None
        self._quiet: dict[int, str] = {}

    def _read(self, path: Path) -> int:
        inode = path.lstat().st_ino
        if path.is_symlink():
            return self._new("link", inode, os.fsencode(path.readlink()))
        if path.is_file():
            return self._new("file", inode, path.read_bytes())
        number = self._new("folder", inode)
        names = {child.name: self._read(child) for child in sorted(path.iterdir()) if _kept(child.name)}
        self.nodes[number].names, self._live[number] = names, dict(names)
        return number

    def _new(self, kind: str, inode: int, content: bytes = b"") -> int:
        number = len(self.nodes)
        self.nodes[number] = Node(kind, content)
        if kind == "folder":
            self._live[number] = {}
        self._inodes[inode] = number
        return number

    # --- one call ---

    def replay(self, call: Call) -> None:
        """Take over one recorded call. Raises ValueError for what the model cannot follow."""
        self._busy = None
        self._quiet.clear()
        {
            Kind.CREATE: self._create,
            Kind.MKDIR: self._create,
            Kind.SYMLINK: self._create,
            Kind.LINK: self._link,
            Kind.UNLINK: self._unlink,
            Kind.RMDIR: self._unlink,
            Kind.RENAME: self._rename,
            Kind.WRITE: self._write,
            Kind.TRUNCATE: self._write,
            Kind.ALLOCATE: self._write,
            Kind.SYNC: self._sync,
            Kind.SYNC_ALL: self._sync_all,
            Kind.MARK: lambda call: None,
            Kind.MAPPED: self._mapped,
        }[call.kind](call)

    def _add(self, **changes: object) -> Effect:
        self._count += 1
        effect = Effect(self._count, **changes)  # type: ignore[arg-type]
        self.pending.append(effect)
        return effect

    def _place(self, path: str) -> tuple[int, str]:
        """The folder of a path and the name in it."""
        *folders, name = path.strip("/").split("/")
        number = self.top
        for folder in folders:
            number = self._live[number][folder]
        return number, name

    def _create(self, call: Call) -> None:
        kind = {Kind.MKDIR: "folder", Kind.SYMLINK: "link"}.get(call.kind, "file")
        number = self._new(kind, call.inode, os.fsencode(call.second))
        if not _kept(call.first):
            self._ignored.add(number)
        elif call.first:  # else a file without a name (O_TMPFILE)
            self._name(call.first, number)

    def _name(self, path: str, number: int) -> None:
        folder, name = self._place(path)
        self._live[folder][name] = number
        self._add(node=folder, name=name, target=number)

    def _link(self, call: Call) -> None:
        self._name(call.first, self._inodes[call.inode])

    def _unlink(self, call: Call) -> None:
        if _kept(call.first):
            folder, name = self._place(call.first)
            del self._live[folder][name]
            self._add(node=folder, name=name)

    def _rename(self, call: Call) -> None:
        if not _kept(call.first) and not _kept(call.second):
            return
        old_folder, old = self._place(call.first)
        folder, name = self._place(call.second)
        number = self._live[old_folder][old]
        if self._live[folder].get(name) == number:  # rename(2): two names of one file stay as they are
            return
        del self._live[old_folder][old]
        self._live[folder][name] = number
        if folder == old_folder:
            self._add(node=folder, name=name, target=number, second=(old, None))
        else:
            new = self._add(node=folder, name=name, target=number, also=old_folder)
            self._add(node=old_folder, name=old, needs=new.number)

    def _write(self, call: Call) -> None:
        number = self._inodes.get(call.inode)
        if number is None:
            raise ValueError(f"expected a known file, got a {call.kind.name} of inode {call.inode}")
        if number in self._ignored:
            return
        if call.kind is Kind.WRITE:
            self._add(node=number, at=call.offset, content=call.content)
        elif call.kind is Kind.TRUNCATE:
            self._add(node=number, size=call.size)
        else:  # grows the file where it is shorter
            self._add(node=number, at=call.offset + call.size, content=b"")

    def _sync(self, call: Call) -> None:
        number = self._inodes[call.inode]
        self._settle(lambda effect: number in (effect.node, effect.also))

    def settle_names(self) -> None:
        """Everything that changed a name becomes durable (a journal commit of ext4)."""
        self._busy = None
        self._quiet.clear()
        self._settle(lambda effect: effect.is_name)

    def _sync_all(self, _call: Call) -> None:
        self._settle(lambda effect: True)

    def _settle(self, durable: Callable[[Effect], bool]) -> None:
        settled = {effect.number for effect in self.pending if durable(effect)}
        for effect in reversed(self.pending):
            if effect.number in settled:
                settled.update({effect.needs} if effect.needs is not None else ())
                settled.update(earlier.number for earlier in self.pending if _precedes(earlier, effect))
        for effect in self.pending:
            if effect.number in settled:
                self._apply(effect)
        self.pending = [effect for effect in self.pending if effect.number not in settled]

    def _apply(self, effect: Effect) -> None:
        node = self.nodes[effect.node]
        node.version += 1
        if effect.is_name:
            _rename_in(node.names, effect)
        else:
            content = bytearray(node.content)
            change(content, effect, None)
            node.content = bytes(content)

    def _mapped(self, call: Call) -> None:
        if _kept(call.first):
            raise ValueError(f"expected calls that can be replayed, got a shared mapping or a stream of {call.first}")

    # --- what a crash leaves ---

    def tree(self, kept: Collection[int], variant: Variant | None = None) -> dict[str, Entry]:
        """Every path below the root, sorted within its folder, and what is there.

        `kept`: numbers of the pending effects that reached the disk, whole or as `variant` says.
        """
        paths: dict[str, Entry] = {}
        self._walk(self.top, "", self._kept_by_node(kept), variant or {}, paths)
        return paths

    def _kept_by_node(self, kept: Collection[int]) -> dict[int, list[Effect]]:
        lost = {effect.number for effect in self.pending} - set(kept)
        by_node: dict[int, list[Effect]] = {}
        for effect in self.pending:
            if effect.number not in lost and effect.needs not in lost:
                by_node.setdefault(effect.node, []).append(effect)
        return by_node

    def digest(self, kept: Collection[int], variant: Variant | None = None) -> str:
        """The same for trees of the same paths and bytes; quicker than `tree`."""
        if self._busy is None:
            self._busy = self._find_busy()
        return self._digest(self.top, self._kept_by_node(kept), variant or {})

    def _digest(self, number: int, by_node: Mapping[int, list[Effect]], variant: Variant) -> str:
        """Folders that nothing pending lies in or below are hashed once for all that may be lost at this moment."""
        quiet = self._busy is not None and number not in self._busy
        if quiet and number in self._quiet:
            return self._quiet[number]
        node, here = self.nodes[number], tuple(by_node.get(number, ()))
        if node.kind != "folder":
            return self.hash_of(Entry(self, number, here, tuple(variant.get(effect.number) for effect in here)))
        names = dict(node.names)
        for effect in here:
            _rename_in(names, effect)
        lines = [f"{name}\0{self._digest(names[name], by_node, variant)}" for name in sorted(names)]
        answer = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        if quiet:
            self._quiet[number] = answer
        return answer

    def _find_busy(self) -> set[int]:
        """Nodes with something pending, and every folder above one, by names that are durable or pending."""
        above: dict[int, set[int]] = {}
        for number, node in self.nodes.items():
            for child in node.names.values():
                above.setdefault(child, set()).add(number)
        for effect in self.pending:
            if effect.target is not None:
                above.setdefault(effect.target, set()).add(effect.node)
        busy: set[int] = set()
        waiting = [effect.node for effect in self.pending]
        while waiting:
            number = waiting.pop()
            if number not in busy:
                busy.add(number)
                waiting += above.get(number, ())
        return busy

    def _walk(
        self,
        number: int,
        prefix: str,
        by_node: Mapping[int, list[Effect]],
        variant: Variant,
        paths: dict[str, Entry],
    ) -> None:
        names = dict(self.nodes[number].names)
        for effect in by_node.get(number, ()):
            _rename_in(names, effect)
        for name in sorted(names):
            child, path = names[name], f"{prefix}{name}"
            here = tuple(by_node.get(child, ()))
            parts = tuple(variant.get(effect.number) for effect in here)
            paths[path] = Entry(self, child, here, parts)
            if self.nodes[child].kind == "folder":
                self._walk(child, f"{path}/", by_node, variant, paths)

    def hash_of(self, entry: Entry) -> str:
        """Hash of what an entry is and holds; the same question is answered from memory."""
        node = self.nodes[entry.node]
        key = (
            entry.node,
            node.version,
            *((e.number, part) for e, part in zip(entry.effects, entry.parts, strict=True)),
        )
        if node.kind == "folder":
            return "folder"
        if key not in self._hashes:
            self._hashes[key] = f"{node.kind} {hashlib.sha256(entry.content()).hexdigest()}"
        return self._hashes[key]


@dataclass(frozen=True)
class Entry:
    """A path of a crash state: its node and what is kept of the effects pending on it."""

    disk: Disk
    node: int
    effects: tuple[Effect, ...]
    parts: tuple[Part | None, ...]

    @property
    def kind(self) -> str:
        """ "file", "folder" or "link"."""
        return self.disk.nodes[self.node].kind

    def content(self) -> bytes:
        """The bytes of a file, the target of a link."""
        before = self.disk.nodes[self.node].content
        if self.kind != "file" or not self.effects:
            return before
        content = bytearray(before)
        for effect, part in zip(self.effects, self.parts, strict=True):
            change(content, effect, part)
        return bytes(content)


def write_tree(tree: Mapping[str, Entry], folder: Path) -> None:
    """Lay a crash state out in the empty folder `folder`."""
    for path, entry in tree.items():
        place = folder / path
        if entry.kind == "folder":
            place.mkdir()
        elif entry.kind == "link":
            place.symlink_to(os.fsdecode(entry.content()))
        else:
            place.write_bytes(entry.content())


def _precedes(earlier: Effect, effect: Effect) -> bool:
    """Whether an earlier change of the same names in the same folder would undo `effect` if it came after it."""
    if not (effect.is_name and earlier.is_name and earlier.node == effect.node and earlier.number < effect.number):
        return False
    return bool(_names(earlier) & _names(effect))


def _names(effect: Effect) -> set[str]:
    return {name for name in (effect.name, effect.second[0] if effect.second else None) if name is not None}


def _kept(path: str) -> bool:
    return not path.endswith(SHARED_MEMORY)


def _rename_in(names: dict[str, int], effect: Effect) -> None:
    for name, target in ((effect.name, effect.target), effect.second or (None, None)):
        if name is not None and target is not None:
            names[name] = target
        elif name is not None:
            names.pop(name, None)


def change(content: bytearray, effect: Effect, part: Part | None) -> None:
    """What one effect does to the bytes of a file; what it grows by without being written is zero."""
    if effect.size is not None:
        del content[effect.size :]
    written = effect.content or b""
    end = effect.at + len(written) if effect.size is None else effect.size
    content.extend(bytes(max(0, end - len(content))))
    for low, high in ((0, len(written)),) if part is None else part.ranges:
        content[effect.at + low : effect.at + high] = written[low:high]
