"""`tools/fleet`: the receipts of many sticks as one table, one line for each box."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.update.receipts import Refused, Row, printable, read_folder, rows

COLUMNS = (
    "serial",
    "board",
    "radbox",
    "model",
    "receipt",
    "outcome",
    "p95_s",
    "memory_mib",
    "would_change",
    "free_gib",
    "studies",
    "failed",
    "running_days",
    "remarks",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins so
_CELL_LENGTH = 40
_REMARK_LENGTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns 0 done, 1 some file was refused, 2 wrong use."""
    parser = argparse.ArgumentParser("fleet", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="receipts, outboxes or copies of sticks")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")
    form.add_argument("--json", action="store_true", help="for machines, with every field")
    parsed = parser.parse_args(arguments)
    if not parsed.folder.is_dir():
        parser.error(f"expected a folder, got {printable(str(parsed.folder), 200)}")
    receipts, refused = read_folder(parsed.folder)
    boxes = rows(receipts)
    write = _csv if parsed.csv else _json if parsed.json else _table
    sys.stdout.write(write(boxes, refused))
    if not parsed.json:
        sys.stderr.writelines(f"fleet: {one.name}: {one.reason}\n" for one in refused)
    return 1 if refused else 0


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table, in the order of COLUMNS, safe to print."""
    one, test, shadow = row.newest, row.newest.self_test, row.newest.shadow
    values = (
        one.serial,
        one.board,
        one.radbox,
        one.to_label,
        str(one.number),
        one.code,
        f"{test.p95_s:.2f}" if test else "",
        str(test.memory_bytes >> 20) if test else "",
        f"{shadow.changed} of {shadow.compared}" if shadow else "",
        f"{one.free_bytes / (1 << 30):.1f}",
        str(one.studies),
        str(one.failed),
        f"{one.running_s / 86400:.1f}",
    )
    remarks = printable("; ".join(row.remarks), _REMARK_LENGTH)
    return (*(printable(value, _CELL_LENGTH) for value in values), remarks)


def _table(boxes: list[Row], refused: list[Refused]) -> str:
    lines = [COLUMNS, *(cells(row) for row in boxes)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    text = "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
    return f"{text}{len(boxes)} boxes, {sum(row.receipts for row in boxes)} receipts, {len(refused)} files refused\n"


def _csv(boxes: list[Row], _refused: list[Refused]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells(row)] for row in boxes)
    return text.getvalue()


def _json(boxes: list[Row], refused: list[Refused]) -> str:
    document = {
        "boxes": [dataclasses.asdict(row) for row in boxes],
        "refused": [dataclasses.asdict(one) for one in refused],
    }
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
