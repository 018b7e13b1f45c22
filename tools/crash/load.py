"""Load for a box under test: real senders that remember what was acknowledged, and people who look at the page."""

from __future__ import annotations

import collections
import copy
import http.client
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from edge.board import Board
from edge.simulate.objects import encode_file, phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom

POOL = 6  # different thoraxes; what differs between studies besides is their names
PIXELS = 256
# Debian's DCMTK leaves Nagle's algorithm on, which stalls every C-STORE by 45 ms.
PEER = {**os.environ, "TCP_NODELAY": "1"}
SEND_WITHIN_S = 60.0
FINISH_WITHIN_S = 60.0


@dataclass(frozen=True)
class Sent:
    """An object that a sender got its Success for. pixels: the bytes of its Pixel Data, which end the object."""

    sop: str
    study: str
    pixels: bytes = field(repr=False)


class Senders:
    """Threads that send study after study, each object until it is acknowledged; DCMTK's programs in turns."""

    def __init__(self, board: Board, folder: Path, *, threads: int, pause_s: float) -> None:
        self.acknowledged: list[Sent] = []
        self.unanswered = 0
        self.studies = 0
        self._until_s = float("inf")
        self._board = board
        self._folder = folder
        self._pause_s = pause_s
        self._pool = [
            phantom_dataset(make_phantom(PhantomOptions(seed, size=PIXELS, detail="fast"))) for seed in range(POOL)
        ]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new study; what was begun is sent to its end, for a minute at most."""
        self._until_s = time.monotonic() + FINISH_WITHIN_S
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, thread: int) -> None:
        folder = self._folder / f"sender-{thread}"
        folder.mkdir(parents=True)
        number = 0
        while not self._stop.wait(self._pause_s):
            number += 1
            self._send_study(folder, f"{thread}/{number}", number)

    def _send_study(self, folder: Path, key: str, number: int) -> None:
        """One to three images; until the last one is acknowledged, the rest is sent again and again."""
        study = generate_uid(entropy_srcs=["storm study", key])
        waiting = {}
        for image in range(1 + number % 3):
            dataset = self._image(f"{key}/{image}", study, number + image)
            path = folder / f"{image}.dcm"
            path.write_bytes(encode_file(dataset))
            waiting[path] = Sent(str(dataset.SOPInstanceUID), study, bytes(dataset.PixelData))
        with self._lock:
            self.studies += 1
        program = _dcmsend if number % 2 else _storescu
        while waiting and not self._late():
            taken = program(self._board, list(waiting))
            with self._lock:
                self.acknowledged += [waiting.pop(path) for path in taken]
                self.unanswered += len(waiting)
            if waiting:
                threading.Event().wait(0.2)

    def _late(self) -> bool:
        """Whether the box was left alone for long and still does not take what was begun."""
        return time.monotonic() > self._until_s

    def _image(self, key: str, study: str, number: int) -> Dataset:
        dataset = copy.deepcopy(self._pool[number % POOL])
        dataset.StudyInstanceUID = study
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["storm image", key])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        return dataset


def _storescu(board: Board, paths: Sequence[Path]) -> list[Path]:
    """Files that storescu says were answered with Success."""
    receive = board.receive
    command = ["storescu", "-v", "-nh", "-xe", "-aec", receive.ae_title, receive.host, str(receive.port)]
    lines = _output([*command, *map(str, paths)]).splitlines()
    taken, sending = [], ""
    for line in lines:
        if "Sending file: " in line:
            sending = line.split("Sending file: ", 1)[1].strip()
        elif "Received Store Response (Success)" in line:
            taken.append(Path(sending))
    return taken


def _dcmsend(board: Board, paths: Sequence[Path]) -> list[Path]:
    """Files that dcmsend's report says were answered with Success."""
    receive = board.receive
    report = paths[0].with_suffix(".txt")
    report.unlink(missing_ok=True)
    command = ["dcmsend", "-nh", "+crf", str(report), "-aec", receive.ae_title, receive.host, str(receive.port)]
    _output([*command, *map(str, paths)])
    taken, filename = [], ""
    for line in report.read_text().splitlines() if report.exists() else ():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "Filename":
            filename = value
        elif name == "DIMSE Status" and value.startswith("0x0000"):
            taken.append(Path(filename))
    return taken


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, env=PEER, capture_output=True, text=True, timeout=SEND_WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout + done.stderr


class Visitor(threading.Thread):
    """Looks at the list, at studies and their images; half a page is a fault, no answer is not (it may be killed)."""

    def __init__(self, board: Board, pause_s: float) -> None:
        super().__init__(name="visitor")
        self.answers: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._web = board.web
        self._pause_s = pause_s
        self._done = threading.Event()
        self._newest = 0

    def stop(self) -> None:
        """Leave."""
        self._done.set()
        self.join()

    def run(self) -> None:
        """Until `stop`."""
        turn = 0
        while not self._done.wait(self._pause_s):
            turn += 1
            study = self._newest - turn % 10 if self._newest > 10 else 1 + turn % 5
            path = ("/", f"/study/{study}", f"/study/{study}/image.png", f"/study/{study}/report.json")[turn % 4]
            self._look(path)

    def _look(self, path: str) -> None:
        try:
            link = http.client.HTTPConnection(self._web.host, self._web.port, timeout=10)
            link.request("GET", path)
            answer = link.getresponse()
            content = answer.read()
            link.close()
        except (OSError, http.client.HTTPException):
            self.answers["none"] += 1
            return
        self.answers[str(answer.status)] += 1
        if answer.status >= 500 and answer.status != 503:
            self.wrong.append(f"the page answered {answer.status}")
        if answer.status == 200 and not self._is_whole(path, content):
            self.wrong.append("half a page" if not path.endswith(".png") else "half an image")

    def _is_whole(self, path: str, content: bytes) -> bool:
        if path.endswith(".png"):
            return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is not None
        if path.endswith(".json"):
            return content.rstrip().endswith(b"}")
        if path == "/":
            keys = [int(part.split(b'"')[0]) for part in content.split(b'href="/study/')[1:] if part[:1].isdigit()]
            self._newest = max(keys, default=0)
        return content.rstrip().endswith(b"</html>")
