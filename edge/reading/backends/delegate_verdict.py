"""What a trial found out about a delegate, kept in the box's cache so that it is not repeated at every start.

One small file for each delegate and bundle, valid only for the very same library, model, runtime, options and kernel.
Faults (a crash, a device that is not plugged in) are not kept: they may pass, and `edge.reading.escalation` spaces out
the tries.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge.bundle import Bundle
from edge.closed import ClosedError, build
from edge.durable import make_directory, remove, write_file
from edge.errors import StorageError
from edge.reading.backends.setup import Setup

LASTING: Final = ("", "delegate.takes-nothing", "delegate.not-faster")
"""Codes of verdicts that hold as long as nothing of the key changes."""
KEPT_FOR_EACH = 4  # bundles: the active one, the one before, the factory's, one on probation
LARGEST_BYTES = 1 << 16
_log = logging.getLogger("worker")


@dataclass(frozen=True)
class Key:
    """What a verdict depends on. kernel: the release of the operating system's."""

    library_sha256: str
    model_sha256: str
    bundle_sha256: str
    runtime: str
    options: tuple[str, ...]
    threads: int
    kernel: str


@dataclass(frozen=True)
class Verdict:
    """code: "" if the delegate earned its place, else why not, with a sentence in `message`.

    nodes: how many of the graph's `of` nodes it takes. delegate_ms, cpu_ms: median time of one image with it and on
    the CPU, measured in turn; 0 where it did not come to that.
    """

    code: str
    message: str
    nodes: int
    of: int
    delegate_ms: float
    cpu_ms: float

    @property
    def words(self) -> str:
        """For people."""
        if not self.delegate_ms:
            return f"takes {self.nodes} of {self.of} nodes"
        return f"takes {self.nodes} of {self.of} nodes, {self.cpu_ms / self.delegate_ms:.1f} times the CPU's speed"


@dataclass(frozen=True)
class _File:
    key: Key
    verdict: Verdict


def kept(bundle: Bundle, setup: Setup, key: Key) -> Verdict | None:
    """The verdict on `key`; None if there is none, or if what is there is torn or about something else."""
    if not setup.cache:
        return None
    try:
        path = _path(bundle, setup)
        with path.open("rb") as stream:
            found = build(_File, json.loads(stream.read(LARGEST_BYTES)), "verdict")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, ClosedError):
        _log.warning("the kept verdict on %s cannot be read, it is tried anew", setup.backend)
        return None
    return found.verdict if found.key == key and found.verdict.code in LASTING else None


def keep(bundle: Bundle, setup: Setup, key: Key, verdict: Verdict) -> None:
    """Keep a lasting verdict where the box has a data folder. A full disk costs only the next start a trial."""
    path = _path(bundle, setup)
    if not setup.cache or verdict.code not in LASTING or not path.parent.parent.is_dir():
        return
    try:
        make_directory(path.parent)
        write_file(path, json.dumps(asdict(_File(key, verdict)), indent=1).encode())
        others = [other for other in path.parent.glob(f"delegate-{setup.backend}-*.json") if other != path]
        for other in sorted(others, key=lambda one: one.stat().st_mtime)[: -KEPT_FOR_EACH + 1]:
            remove(other)
    except (StorageError, OSError) as error:
        code = getattr(error, "code", "storage.failed")
        _log.warning("%s: the verdict on %s could not be kept, the next start tries it anew", code, setup.backend)


def _path(bundle: Bundle, setup: Setup) -> Path:
    return Path(setup.cache) / f"delegate-{setup.backend}-{bundle.sha256[:12]}.json"
