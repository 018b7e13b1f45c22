"""The results that the box keeps, in bench/ of its data folder: one file for each run, newest by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge import durable
from edge.bench_compare import differences
from edge.bench_result import LARGEST_BYTES, Result, from_json, to_json
from edge.errors import RadboxError

FOLDER: Final = "bench"
MOST_KEPT: Final = 50
_NAME = re.compile(r"(\d{6})\.json")


@dataclass(frozen=True)
class Kept:
    """The newest first. unreadable: files that are no result, or of another schema, or that may not be read."""

    results: tuple[Result, ...]
    unreadable: int


def keep(data_dir: Path, result: Result) -> Path:
    """Write a result durably and delete the oldest beyond MOST_KEPT. Raises StorageError."""
    folder = data_dir / FOLDER
    durable.make_directory(folder)
    with durable.locked(folder):
        files = _files(folder)
        path = folder / f"{(_number(files[0]) if files else 0) + 1:06d}.json"
        durable.write_file(path, to_json(result).encode())
        for old in files[MOST_KEPT - 1 :]:
            durable.remove(old)
    return path


def kept(data_dir: Path) -> Kept:
    """Everything that can be read; never raises for what cannot."""
    results, unreadable = [], 0
    for path in _files(data_dir / FOLDER):
        try:
            with path.open("rb") as file:
                results.append(from_json(file.read(LARGEST_BYTES + 1)))
        except (OSError, RadboxError):
            unreadable += 1
    return Kept(tuple(results), unreadable)


def previous_like(results: tuple[Result, ...]) -> Result | None:
    """The newest result before the first that may be compared with it."""
    return next((one for one in results[1:] if not differences(results[0], one)), None)


def _files(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted((path for path in folder.glob("*.json") if _NAME.fullmatch(path.name)), reverse=True)


def _number(path: Path) -> int:
    return int(path.stem)
