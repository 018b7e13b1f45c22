"""`tools/fuzz_parsers TARGET|all [--runs N] [--seed N]`: coverage-guided fuzzing of the parsers of outside bytes.

Crashes are written to build/fuzz/<target>/; a fixed one moves to tests/fuzz/<target>/ and is replayed by every check.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_DONE = re.compile(rb"Done (\d+) runs in (\d+) second")


def main() -> int:
    """Run one or all targets, each in a process of its own; 1 if one crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="a name of tools/fuzz/targets.py, or all")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return _fuzz(options.target, options.runs, options.seed)
    from tools.fuzz.targets import TARGETS

    names = list(TARGETS) if options.target == "all" else [options.target]
    results = [_run(name, options.runs, options.seed) for name in names]
    for result in results:
        print(json.dumps(result) if options.json else " ".join(f"{key}={value}" for key, value in result.items()))
    return int(any(result["crashed"] for result in results))


def _run(name: str, runs: int, seed: int) -> dict[str, object]:
    command = [sys.executable, "-m", "tools.fuzz.run", name, "--inside", "--runs", str(runs), "--seed", str(seed)]
    start_s = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False)
    done = _DONE.search(ended.stderr)
    crashed = ended.returncode != 0 or not done
    if crashed:
        sys.stderr.write(ended.stderr.decode(errors="replace")[-4000:])
    return {
        "target": name,
        "executions": int(done[1]) if done else 0,
        "seconds": round(time.monotonic() - start_s, 1),
        "crashed": crashed,
    }


def _fuzz(name: str, runs: int, seed: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["edge", "pynetdicom", "tuf", "securesystemslib"]):
        from tools.fuzz.targets import TARGETS, run
    target = TARGETS[name]
    corpus = ROOT / "build" / "fuzz" / name / f"corpus-{os.getpid()}"
    corpus.mkdir(parents=True, exist_ok=True)
    kept = ROOT / "tests" / "fuzz" / name
    for number, content in enumerate([*target.seeds(), *(path.read_bytes() for path in sorted(kept.glob("*")))]):
        (corpus / f"seed-{number}").write_bytes(content)
    arguments = [
        sys.argv[0],
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={target.longest_bytes}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={corpus.parent}/",
        str(corpus),
    ]
    atheris.Setup(arguments, lambda content: run(target, content))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
