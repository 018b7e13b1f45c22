"""The part of an update that runs as the owner of the data folder, started by `edge.care.update.mount` as root.

    python -m edge.care.update.session BOARD install FOLDER
    python -m edge.care.update.session BOARD refuse CODE DETAIL

The database key, if there is one, comes on standard input. One line of JSON goes out: code, message, receipt (name and
content, or null). It never writes to the stick: that is mounted read-only while this runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from edge.board import load_board
from edge.care.update.install import install, refuse
from edge.durable import make_directory
from edge.errors import UpdateError
from edge.service import setup_logging
from edge.store import open_store


def main(arguments: Sequence[str], key: bytes | None) -> int:
    """See the module docstring; 0 once the outcome was told, whatever it was."""
    board_file, action, *rest = arguments
    setup_logging("update")
    board = load_board(Path(board_file))
    make_directory(board.data_dir)
    with closing(open_store(board.data_dir, key=key)) as store:
        if action == "refuse":
            code, detail = rest
            result = refuse(board, store, UpdateError(detail, code=code))
        else:
            result = install(board, store, Path(rest[0]))
    receipt = result.receipt and {"name": result.receipt.name, "content": result.receipt.content.decode()}
    answer = {"code": result.outcome.code, "message": result.outcome.message, "receipt": receipt}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer.read() or None))
