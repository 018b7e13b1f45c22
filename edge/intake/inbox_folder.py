"""Where the box's services hand in objects: one folder for each source below the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

INBOX: Final = Path("inbox")
SUFFIX: Final = ".dcm"  # of a whole file; others, and names that begin with ".", are passed over


def inbox_folder(data_dir: Path, source: str) -> Path:
    """The folder of a source; its name is shown as the calling AE title of what comes from it."""
    return data_dir / INBOX / source
