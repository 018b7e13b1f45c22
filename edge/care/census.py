"""Which files lie where objects lie, and whether their number is what the database says. Reads names only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.store import Store, object_path
from edge.store_paths import OBJECTS, QUARANTINE

_NAME: Final = re.compile(r"[0-9a-f]{64}\.dcm")
_IN_FLIGHT: Final = 100  # objects that may just be arriving


def object_files(data_dir: Path) -> Iterator[tuple[str, bool]]:
    """Every file below the objects' folder, relative to the data folder, by name; False: its name is none of ours."""
    for folder in sorted(_listed(data_dir / OBJECTS)):
        for path in sorted(_listed(folder)) if folder.is_dir() else [folder]:
            relative = path.relative_to(data_dir)
            ours = bool(_NAME.fullmatch(path.name)) and relative == object_path(path.stem) and path.is_file()
            yield str(relative), ours


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def quick_check(data_dir: Path, store: Store) -> str:
    """A sentence if files are missing or far too many, else ""; reads names only, beside services at work."""
    named = store.file_counts()  # before the files: what arrives meanwhile only adds to them
    folder = data_dir / QUARANTINE
    lying = sum(ours for _, ours in object_files(data_dir)), len(list(folder.glob("*.bin"))) if folder.is_dir() else 0
    if all(rows <= files <= rows + _IN_FLIGHT for rows, files in zip(named, lying, strict=True)):
        return ""
    return (
        f"The database names {named[0]} images and {named[1]} quarantined objects, on the disk are {lying[0]} and "
        f"{lying[1]}. Run `radbox fsck`; it says what is wrong."
    )
