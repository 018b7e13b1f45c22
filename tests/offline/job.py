"""The box's main job by other people's tools: DCMTK sends, the draft is read off the page. Prints the report.

python -m tests.offline.job BOARD DATA_DIR FILE
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from edge.board import load_board
from edge.box import running, wait_until_ready
from tests.receiver_process import PEER_ENVIRONMENT

WAIT_S = 90.0


def main(arguments: Sequence[str]) -> int:
    """0 if a draft was written and every page can be read."""
    board_file, data_dir, path = (Path(one) for one in arguments)
    board = load_board(board_file)
    board = dataclasses.replace(
        board,
        data_dir=data_dir,
        receive=dataclasses.replace(board.receive, port=0),
        web=dataclasses.replace(board.web, port=0),
    )
    with running(board, ("--board", str(board_file))) as box:
        wait_until_ready(box)
        receive = box.board.receive
        send = ("storescu", "-v", receive.host, str(receive.port), str(path))
        sent = subprocess.run(send, capture_output=True, text=True, env=PEER_ENVIRONMENT, timeout=60, check=False)
        print(sent.stdout, sent.stderr)
        deadline = time.monotonic() + WAIT_S
        while not (studies := box.store.studies()) or studies[0].state not in ("draft", "refused", "failed"):
            if time.monotonic() > deadline:
                print("not read in time")
                return 1
            time.sleep(0.1)
        key = studies[0].study_key
        for page in ("", "issues", "about", "about/network", "model", "healthz", f"study/{key}"):
            with urllib.request.urlopen(f"{box.page}{page}", timeout=20) as answer:
                print(page, answer.status)
        with urllib.request.urlopen(f"{box.page}study/{key}/report.txt", timeout=20) as answer:
            print(answer.read().decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
