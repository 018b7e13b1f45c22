"""Where nothing can be reached: namespaces of a test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WITNESSES = ("strace", "packets")


@dataclass(frozen=True)
class Told:
    """What a command did where nothing can be reached. questions: names it asked for; reached: addresses it tried."""

    code: int
    output: str
    questions: tuple[str, ...]
    reached: tuple[str, ...]


def offline(witness: str, command: Sequence[str], folder: Path, **environment: str) -> Told:
    """Run `command` with nothing but a loopback interface. witness: one of WITNESSES."""
    result = folder / f"{witness}.json"
    inside = (sys.executable, "-m", "tests.offline.inside", str(result), witness, *command)
    done = subprocess.run(
        (*_unshare(), *inside),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout
    told = json.loads(result.read_text())
    return Told(told["code"], told["output"], tuple(told["questions"]), tuple(told["reached"]))


def _unshare() -> tuple[str, ...]:
    own = ("unshare", "--net", "--mount", "--propagation", "private")
    return own if os.geteuid() == 0 else (*own, "--user", "--map-root-user")


@lru_cache
def why_not(witness: str) -> str:
    """Why this machine cannot do it, "" if it can."""
    for tool in ("unshare", "ip", "mount", *(("strace",) if witness == "strace" else ())):
        if shutil.which(tool) is None:
            return f"no {tool} on this machine"
    if witness == "packets" and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun that may be used"
    probe = (*_unshare(), "ip", "link", "set", "lo", "up")
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"no namespaces of one's own: {done.stderr.strip()}" if done.returncode else ""
