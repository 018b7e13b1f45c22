"""Lets the CUDA modules be imported where the box's own packages are not: on a GPU machine with numpy and a driver.

edge.reading.backends imports the bundle, and that cryptography; edge.reading.backends.cuda_* need neither. Import this
module before them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]

if importlib.util.find_spec("cryptography") is None and "edge.reading.backends" not in sys.modules:
    package = ModuleType("edge.reading.backends")
    package.__path__ = [str(ROOT / "edge" / "reading" / "backends")]
    sys.modules[package.__name__] = package
