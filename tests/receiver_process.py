"""A real receiver process for tests, and the real peers that talk to it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.transport import AssociationSocket

from edge.store import Store, open_store

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 30.0

# Debian's DCMTK leaves Nagle's algorithm on, which stalls every C-STORE by 45 ms.
PEER_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def _close_socket(link: AssociationSocket) -> None:
    """pynetdicom leaves a socket open whose peer is gone already; here that would be a ResourceWarning."""
    if link.socket is not None:
        with contextlib.suppress(OSError):
            link.socket.shutdown(socket.SHUT_RDWR)
        link.socket.close()


AssociationSocket._shutdown_socket = _close_socket


class ReceiverProcess:
    """`python -m edge.intake.receive` on a data folder of its own; keys of [receive] may be overridden."""

    def __init__(self, folder: Path, **receive: object) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        keys = {"port": self.port, "quiet_time_s": 0.3, "min_free_bytes": 2**20, **receive}
        self.board = folder / "board.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        head = f'name = "test"\ndata_dir = {json.dumps(str(self.data_dir))}\n'
        tail = '\n[worker]\nbundle = "none"\n[storage]\nreserve_bytes = 1048576\n'
        self.board.write_text(head + "[receive]\n" + "\n".join(lines) + tail)
        self.log = folder / "receiver.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> ReceiverProcess:
        """Start and wait until it listens."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "edge.intake.receive", str(self.board)]
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline_s, self.log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)

    def alive(self) -> bool:
        """True while the process runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    def store(self) -> Store:
        """The receiver's database, opened beside it."""
        return open_store(self.data_dir)

    def __enter__(self) -> ReceiverProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.alive():
            self.kill()

    # --- what lies on its disk ---

    def files(self, folder: str) -> list[Path]:
        """Files below a folder of the data folder, temporary ones included."""
        return sorted(path for path in (self.data_dir / folder).rglob("*") if path.is_file())

    # --- peers ---

    def dcmtk(self, program: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run storescu, dcmsend or echoscu against it."""
        command = [program, "-aec", "RADBOX", "127.0.0.1", str(self.port), *map(str, arguments)]
        done = subprocess.run(command, env=PEER_ENVIRONMENT, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def associate(
        self,
        contexts: Sequence[tuple[str, str]],
        calling_ae: str = "TESTSCU",
        called_ae: str = "RADBOX",
    ) -> Association:
        """A pynetdicom association for (SOP class, transfer syntax) pairs."""
        ae = AE(calling_ae)
        for sop_class, transfer_syntax in contexts:
            ae.add_requested_context(sop_class, transfer_syntax)
        return ae.associate("127.0.0.1", self.port, ae_title=called_ae)


def wait_for(condition, timeout_s: float = 15.0) -> None:
    """Poll until `condition()` holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "condition did not become true in time"
        time.sleep(0.02)


def radiograph(seed: int = 0, *, rows: int = 64, study: str | None = None, sop: str | None = None) -> Dataset:
    """A small valid CR object of noise, explicit VR little endian."""
    noise = np.random.default_rng(seed).integers(0, 4096, (rows, rows), dtype=np.uint16)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = sop or generate_uid(entropy_srcs=["sop", str(seed)])
    ds.StudyInstanceUID = study or generate_uid(entropy_srcs=["study", str(seed)])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(seed)])
    ds.Modality = "CR"
    ds.PatientID = f"P{seed}"
    ds.PatientName = f"Seeded^Name{seed}"
    ds.StudyDate = "20240102"
    ds.AccessionNumber = f"A{seed}"
    ds.StudyDescription = "Thorax"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = rows
    ds.BitsAllocated = 16
    ds.BitsStored = ds.HighBit = 12
    ds.HighBit = 11
    ds.PixelRepresentation = 0
    ds.PixelData = noise.tobytes()
    return ds


def encoded(ds: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    """The data set alone, as a C-STORE carries it."""
    content = encode(ds, implicit, little)
    assert content is not None
    return content


def send_bytes(
    association: Association,
    content: bytes,
    sop_class: str,
    sop_instance: str,
    message_id: int = 1,
) -> int | None:
    """C-STORE raw bytes under the first context of the SOP class: the status, or None where no answer came."""
    context = next(cx for cx in association.accepted_contexts if cx.abstract_syntax == sop_class)
    request = C_STORE()
    request.MessageID = message_id
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = sop_instance
    request.Priority = 2
    request.DataSet = io.BytesIO(content)
    association._reactor_checkpoint.clear()
    try:
        association.dimse.send_msg(request, context.context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return None if response is None else int(response.Status)


def claims(store: Store) -> Iterator[tuple[int, list[str]]]:
    """Claim and finish until nothing waits: (study, SOP Instance UIDs read)."""
    while (study := store.claim_next("test")) is not None:
        store.finish_draft(study.study_key, "{}", "", {})
        yield study.study_key, [row.sop_instance_uid for row in study.instances]
