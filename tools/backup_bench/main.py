"""`tools/bench_backup [--objects N] [--folder DIR] [--json]`: MB/s of backup (read back included) and of restore.

Objects of 10 MB of random bytes (nothing compresses them), filed as the receiver does; archive and boxes on one disk.
The key derivation (scrypt, 128 MiB) is part of every figure: it costs the same however large the box is.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from edge.board import Board, load_board
from edge.care.backup import Options, write_backup
from edge.care.restore import restore
from edge.durable import make_directory, write_file
from edge.store import InstanceFacts, StudyFacts, object_path, open_store

ROOT = Path(__file__).resolve().parent.parent.parent
OBJECT_BYTES = 10 * 2**20
PASSPHRASE = b"correct horse battery staple"


def main() -> int:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="the disk to measure on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-backup-", dir=options.folder) as folder:
        result = _measure(Path(folder), options.objects)
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    return 0


def _measure(folder: Path, objects: int) -> dict[str, float]:
    quiet = Options(tell=lambda _line: None)
    box, fresh = _board(folder / "box"), _board(folder / "fresh")
    _fill(box, objects)
    archive = folder / "archive.rbk"
    start_s = time.monotonic()
    write_backup(box, archive, PASSPHRASE, quiet)
    written_s = time.monotonic()
    restore(fresh, archive, PASSPHRASE, quiet)
    restored_s = time.monotonic()
    megabytes = objects * OBJECT_BYTES / 1e6
    return {
        "megabytes": round(megabytes, 1),
        "backup_and_verify_s": round(written_s - start_s, 2),
        "backup_and_verify_mb_per_s": round(megabytes / (written_s - start_s), 1),
        "restore_s": round(restored_s - written_s, 2),
        "restore_mb_per_s": round(megabytes / (restored_s - written_s), 1),
    }


def _board(data_dir: Path) -> Board:
    return dataclasses.replace(load_board(ROOT / "board_configs" / "sim.toml"), data_dir=data_dir)


def _fill(board: Board, objects: int) -> None:
    make_directory(board.data_dir)
    with closing(open_store(board.data_dir)) as store:
        for number in range(objects):
            content = os.urandom(OBJECT_BYTES)
            sha256 = hashlib.sha256(content).hexdigest()
            path = object_path(sha256)
            make_directory((board.data_dir / path).parent)
            write_file(board.data_dir / path, content)
            uid = f"2.25.{number + 1}"
            facts = InstanceFacts(f"{uid}.1", "1.2", "1.2.1", sha256, len(content), str(path), "CR1", time.monotonic())
            store.add_instance(StudyFacts(uid, f"P-{number}"), facts)


if __name__ == "__main__":
    sys.exit(main())
