"""Folders of pictures that no report names: what a worker left that was killed between picture and report."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edge.durable_names import remove_tree
from edge.store_paths import RENDERED


def sweep_renderings(data_dir: Path, named: Collection[str]) -> int:
    """Delete rendered/<study>/<attempt> that is not in `named` (relative to `data_dir`); returns how many.

    For the worker at its start, when nobody draws. Raises StorageError.
    """
    unknown = [
        folder
        for folder in sorted((data_dir / RENDERED).glob("*/*"))
        if folder.is_dir() and str(folder.relative_to(data_dir)) not in named
    ]
    for folder in unknown:
        remove_tree(folder)
        if not any(folder.parent.iterdir()):
            remove_tree(folder.parent)
    return len(unknown)
