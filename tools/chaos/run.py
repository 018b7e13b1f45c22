"""`tools/chaos_test NAME...|all [--json]`: break things on purpose and check the promised outcome."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tools.chaos.scenarios import SCENARIOS, ready
from tools.powercut.processes import Stuck, adopt_orphans, kill_descendants, stoppable


def main() -> int:
    """Run scenarios; 1 if a promise was not kept, 2 where they cannot be run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=(*SCENARIOS, "all"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lacking = ready()
    if lacking:
        print(f"chaos_test: {lacking}", file=sys.stderr)
        return 2
    names = list(SCENARIOS) if "all" in options.names else options.names
    adopt_orphans()
    kept = True
    with stoppable():
        for name in names:
            result = _run(name)
            kept = kept and bool(result["kept"])
            print(json.dumps(result) if options.json else _words(result), flush=True)
    return int(not kept)


def _run(name: str) -> dict[str, object]:
    scenario = SCENARIOS[name]
    start_s = time.monotonic()
    checks: list[tuple[str, bool]] = []
    with tempfile.TemporaryDirectory(prefix="radbox-chaos-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        try:
            checks.extend(scenario.run(Path(folder)))
        except Stuck as error:
            checks.append((f"the scenario ran to its end ({error})", False))
        finally:
            kill_descendants()
    return {
        "scenario": name,
        "promise": scenario.promise,
        "kept": bool(checks) and all(held for _, held in checks),
        "checks": dict(checks),
        "seconds": round(time.monotonic() - start_s, 1),
    }


def _words(result: dict[str, object]) -> str:
    checks = result["checks"]
    assert isinstance(checks, dict)
    lines = [f"  {'ok  ' if held else 'FAIL'} {sentence}" for sentence, held in checks.items()]
    verdict = "kept" if result["kept"] else "NOT KEPT"
    return "\n".join([f"{result['scenario']}: {verdict}, {result['seconds']} s. {result['promise']}", *lines])


if __name__ == "__main__":
    sys.exit(main())
