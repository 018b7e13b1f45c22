"""Runs inside the machine, with the package's own Python: the box's records as one line of JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge.board import load_board
from edge.store import database_key, open_store


def main() -> None:
    """Print the line."""
    board = load_board(Path(sys.argv[1]))
    store = open_store(board.data_dir, key=database_key())
    studies = []
    for summary in store.studies(limit=1000):
        detail = store.study(summary.study_key)
        assert detail is not None
        objects = [
            {"uid": one.sop_instance_uid, "sha256": one.sha256, "from": one.calling_ae, "path": one.path}
            for one in detail.instances
        ]
        studies.append({"key": summary.study_key, "state": summary.state, "code": summary.code, "objects": objects})
    found = {
        "studies": studies,
        "services": {row.name: [row.state, row.code, row.message] for row in store.services()},
        "facts": {name: row.value for name, row in store.facts().items()},
        "events": [[row.code, row.message] for row in store.events(200)],
        "counts": store.counts(),
        "issues": [row.code for row in store.issues()],
        "quarantine": [row.code for row in store.quarantine()],
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
