"""The board files that come with radbox: in the checkout, or where the Debian package puts them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge.errors import ConfigError

CHECKOUT: Final = Path(__file__).resolve().parent.parent / "board_configs"
INSTALLED: Final = Path("/usr/share/radbox/boards")


def shipped() -> dict[str, Path]:
    """Name -> file of every board file that came with this radbox, by name."""
    folder = CHECKOUT if CHECKOUT.is_dir() else INSTALLED
    return {path.stem: path for path in sorted(folder.glob("*.toml")) if not path.is_symlink()}


def board_path(named: str | Path) -> Path:
    """The file that a person means: a path, or the name of a shipped board where no such file is here."""
    path = Path(named)
    known = path.name == str(named) and not path.suffix and not path.exists()
    return (shipped().get(path.name) if known else None) or path.absolute()


def shipped_file(name: str) -> Path:
    """The shipped board file of this name. Raises ConfigError (board.unknown)."""
    boards = shipped()
    if name not in boards:
        raise ConfigError(f"expected a board out of {', '.join(boards)}, got {name!r}", code="board.unknown")
    return boards[name]


def summary(path: Path) -> str:
    """What the first comment of a board file says."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return lines[0] if lines else ""
