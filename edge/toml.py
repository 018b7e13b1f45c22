"""TOML as bytes in, tables out: `tomllib` where the standard library has it (3.11), `tomli` before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(content: bytes) -> dict[str, Any]:
    """The tables of one TOML 1.0 document. Raises ValueError (bad UTF-8, bad TOML), which the caller translates."""
    return tomllib.loads(content.decode("utf-8"))


def load_toml(path: Path) -> dict[str, Any]:
    """`parse_toml` of a file. Raises OSError where it cannot be read and ValueError where it is not TOML."""
    return parse_toml(path.read_bytes())
