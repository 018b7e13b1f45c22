"""`tools/powercut_test`: real power cuts at random moments, and what was lost."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence

from tools.powercut import disk
from tools.powercut.backup import cut_while_backing_up
from tools.powercut.control import Control, control
from tools.powercut.figures import Tally, as_json, table
from tools.powercut.processes import Stuck
from tools.powercut.receive import cut_while_receiving
from tools.powercut.receivers import RECEIVERS
from tools.powercut.update import cut_while_updating
from tools.powercut.workplace import Workplace, workplace

OURS = "radbox"
LOST, WRONG_USE, VOID, INTERRUPTED = 1, 2, 3, 130
EXAMPLES = """\
examples:
  tools/powercut_test receive --cuts 200               our receiver
  tools/powercut_test receive --cuts 50 --peer all     ours, DCMTK's storescp and Orthanc, one after the other
  tools/powercut_test update --cuts 200
  tools/powercut_test backup --cuts 50

Exit codes: 0 ours lost nothing, 1 ours lost something or did not come back, 2 wrong use, 3 the run says nothing (a
control did not behave, or the harness itself failed), 130 stopped."""

Area = Callable[[Workplace, argparse.Namespace, Callable[[Tally], None]], list[Tally]]


def _receive(place: Workplace, chosen: argparse.Namespace, progress: Callable[[Tally], None]) -> list[Tally]:
    names = list(RECEIVERS) if chosen.peer == "all" else [chosen.peer]
    for name in names:
        for program in ("echoscu", *RECEIVERS[name].programs):
            if shutil.which(program) is None:
                raise Stuck(f"expected the program {program}, got none: run tools/setup --test")
    return [cut_while_receiving(place, RECEIVERS[name], chosen.seed, chosen.cuts, progress) for name in names]


def _update(place: Workplace, chosen: argparse.Namespace, progress: Callable[[Tally], None]) -> list[Tally]:
    return [cut_while_updating(place, chosen.seed, chosen.cuts, progress)]


def _backup(place: Workplace, chosen: argparse.Namespace, progress: Callable[[Tally], None]) -> list[Tally]:
    return [cut_while_backing_up(place, chosen.seed, chosen.cuts, progress)]


AREAS: dict[str, Area] = {"receive": _receive, "update": _update, "backup": _backup}


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tools/powercut_test",
        description="Cut the power at random moments and compare what is there afterwards with what was acknowledged.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("area", choices=AREAS, help="what the box does when the power goes")
    parser.add_argument("--cuts", metavar="N", type=_count, default=20, help="cuts, of each receiver (default: 20)")
    peers = [*RECEIVERS, "all"]
    parser.add_argument("--peer", choices=peers, default=OURS, help="receive only: which receiver (default: radbox)")
    parser.add_argument("--seed", metavar="N", type=int, help="moments and images (default: another each run)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser


def _progress(tally: Tally) -> None:
    if sys.stderr.isatty() or tally.cuts % 10 == 0:
        line = f"{tally.name}: {tally.cuts} cuts, {tally.acknowledged} acknowledged, {tally.lost} lost, "
        line += f"{tally.damaged} damaged, {tally.unbootable} unbootable"
        sys.stderr.write(f"\r{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.area != "receive" and chosen.peer != OURS:
        parser.error("expected --peer only beside receive: the peers have neither updates nor backups")
    if chosen.seed is None:
        chosen.seed = random.SystemRandom().randrange(2**31)
    if lacking := disk.missing():
        return _void(lacking)
    controls: list[Control] = []
    try:
        with workplace() as place:
            controls.append(control(place, "before"))
            tallies = AREAS[chosen.area](place, chosen, _progress)
            controls.append(control(place, "after"))
    except Stuck as error:
        return _void(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    if chosen.json:
        print(json.dumps(as_json(chosen.area, chosen.seed, controls, tallies)))
    else:
        print(table(chosen.area, chosen.seed, controls, tallies))
    if not all(one.valid for one in controls):
        return VOID
    return 0 if all(one.faultless for one in tallies if one.name not in RECEIVERS or one.name == OURS) else LOST


def _void(why: str) -> int:
    print(f"powercut_test: {why}", file=sys.stderr)
    return VOID


if __name__ == "__main__":
    sys.exit(main())
