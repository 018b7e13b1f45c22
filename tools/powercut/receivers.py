"""The receivers that lose power: ours, DCMTK's storescp and Orthanc, each as it would run in earnest."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal

from edge.errors import RadboxError
from edge.store import InstanceRow, Store, open_store
from tools.powercut.objects import data_set_bytes, is_dx, pixel_bytes, sop_instance_uid
from tools.powercut.processes import POLL_S, Stuck, free_port, listens, run, spawn

START_TIMEOUT_S = 30.0
PDU_BYTES = 131_072
NO_NAGLE = {"TCP_NODELAY": "1"}  # Debian's DCMTK and Orthanc otherwise stall 45 ms per object
Fate = Literal["whole", "lost", "damaged"]


class Unbootable(Exception):
    """The service does not come back, or cannot open what it kept."""


class Receiver(ABC):
    """One receiver on one data folder; `start` again after each cut."""

    name: str
    programs: tuple[str, ...] = ()

    def __init__(self, folder: Path, mount: Path, seed: int) -> None:
        """`folder`: outside the disk, for logs and settings; `mount`: the disk that loses power."""
        self.folder = folder
        self.home = mount / "box"
        self.seed = seed
        self.port = free_port()
        self.log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the process; do not wait for it."""
        self._process = spawn(self.command(), self.log, NO_NAGLE)

    def start(self) -> None:
        """Start and wait for its answer to a C-ECHO. Raises Unbootable."""
        self.launch()
        process = self._process
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not listens(self.port):
            if process is None or process.poll() is not None:
                raise Unbootable(f"{self.name} ended at its start: {self.last_words()}")
            if time.monotonic() > deadline_s:
                raise Unbootable(f"{self.name} did not listen within {START_TIMEOUT_S:g} s: {self.last_words()}")
            time.sleep(POLL_S)
        try:
            run("echoscu", "--timeout", "10", "-aec", "RADBOX", "127.0.0.1", str(self.port))
        except Stuck as error:
            raise Unbootable(f"{self.name} did not answer a C-ECHO: {error}") from error

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-600:].strip()

    @abstractmethod
    def command(self) -> list[str | Path]:
        """The command line."""

    @abstractmethod
    def fates(self, numbers: Collection[int]) -> dict[int, Fate]:
        """What became of these objects, asked of the running receiver's own records. Raises Unbootable."""

    def stray(self) -> int:
        """Records that point to nothing or to other bytes, of objects that nobody was told are kept."""
        return 0


class Radbox(Receiver):
    """`radbox receive`."""

    name = "radbox"

    def command(self) -> list[str | Path]:
        board = self.folder / "board.toml"
        receive = f'[receive]\nhost = "127.0.0.1"\nport = {self.port}\nmin_free_bytes = {16 * 2**20}\n'
        storage = f"[storage]\nreserve_bytes = {4 * 2**20}\n"
        board.write_text(f'name = "powercut"\ndata_dir = "unused"\n{receive}{storage}[worker]\nbundle = "none"\n')
        options: list[str | Path] = ["--board", board, "--data-dir", self.home, "--port", str(self.port)]
        return [sys.executable, "-m", "edge", "receive", *options]

    def _rows(self, store: Store) -> Iterator[InstanceRow]:
        offset = 0
        while page := store.studies(limit=200, offset=offset):
            offset += len(page)
            for summary in page:
                detail = store.study(summary.study_key)
                if detail is not None:
                    yield from detail.instances

    def _read(self) -> list[InstanceRow]:
        try:
            store = open_store(self.home)
            try:
                return list(self._rows(store))
            finally:
                store.close()
        except RadboxError as error:
            raise Unbootable(f"radbox's database does not open: {error.code}: {error.message}") from error

    def fates(self, numbers: Collection[int]) -> dict[int, Fate]:
        rows = {row.sop_instance_uid: row for row in self._read()}
        found: dict[int, Fate] = {}
        for number in numbers:
            row = rows.get(sop_instance_uid(self.seed, number))
            if row is None:
                found[number] = "lost"
                continue
            path = self.home / row.path
            if not path.exists():
                found[number] = "lost"
                continue
            kept = path.read_bytes()
            same = kept.endswith(data_set_bytes(self.seed, number)) and sha256(kept).hexdigest() == row.sha256
            found[number] = "whole" if same and len(kept) == row.size_bytes else "damaged"
        return found

    def stray(self) -> int:
        """Rows, whoever was told of them, whose file is missing or of another size."""
        paths = [(self.home / row.path, row.size_bytes) for row in self._read()]
        return sum(not path.exists() or path.stat().st_size != size for path, size in paths)


class Storescp(Receiver):
    """DCMTK's storescp, bit-preserving, a process for each association."""

    name = "storescp"
    programs = ("storescp",)

    def command(self) -> list[str | Path]:
        self.home.mkdir(exist_ok=True)
        options: list[str | Path] = ["--fork", "+B", "--max-pdu", str(PDU_BYTES), "--output-directory", self.home]
        return ["storescp", "--quiet", *options, str(self.port)]

    def fates(self, numbers: Collection[int]) -> dict[int, Fate]:
        found: dict[int, Fate] = {}
        for number in numbers:
            prefix = "DX" if is_dx(number) else "CT"
            path = self.home / f"{prefix}.{sop_instance_uid(self.seed, number)}"
            if not path.exists():
                found[number] = "lost"
            else:
                whole = path.read_bytes().endswith(data_set_bytes(self.seed, number))
                found[number] = "whole" if whole else "damaged"
        return found


class Orthanc(Receiver):
    """Orthanc with its built-in SQLite index and SyncStorageArea on (its default)."""

    name = "orthanc"
    programs = ("Orthanc",)

    def command(self) -> list[str | Path]:
        self._http = free_port()
        settings = {
            "Name": "POWERCUT",
            "StorageDirectory": str(self.home),
            "IndexDirectory": str(self.home),
            "SyncStorageArea": True,
            "DicomAet": "RADBOX",
            "DicomPort": self.port,
            "HttpPort": self._http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "MaximumPduLength": PDU_BYTES,
            "Plugins": [],
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(settings))
        return ["Orthanc", file]

    def fates(self, numbers: Collection[int]) -> dict[int, Fate]:
        link = http.client.HTTPConnection("127.0.0.1", self._http, timeout=20)
        try:
            return {number: self._fate(link, number) for number in numbers}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unbootable(f"Orthanc does not answer its REST API: {type(error).__name__}") from error
        finally:
            link.close()

    def _fate(self, link: http.client.HTTPConnection, number: int) -> Fate:
        link.request("POST", "/tools/lookup", body=sop_instance_uid(self.seed, number))
        found = [one["ID"] for one in json.loads(link.getresponse().read()) if one["Type"] == "Instance"]
        if not found:
            return "lost"
        link.request("GET", f"/instances/{found[0]}/file")
        response = link.getresponse()
        content = response.read()
        whole = response.status == http.HTTPStatus.OK and content.endswith(pixel_bytes(self.seed, number))
        return "whole" if whole else "damaged"


RECEIVERS: dict[str, type[Receiver]] = {one.name: one for one in (Radbox, Storescp, Orthanc)}
