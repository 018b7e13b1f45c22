"""The decoding child may crash, hang, run out of memory or lie; its parent gets an error with a code and goes on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge.errors import DecodeError, DicomError, RadboxError
from edge.reading.decode_child import Decoder, read_in_child
from edge.reading.decode_wire import WireError, error_message, receive_images, send_images, send_json
from edge.reading.dicom import read_dicom
from edge.reading.radiograph import Radiograph
from tests.dicom_objects import image_object, ramp, save


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(timeout_s=20.0, memory_bytes=512 * 1024 * 1024) as warm:
        yield warm


@pytest.fixture
def good(tmp_path: Path) -> Path:
    ds = image_object(
        ramp(), PatientAge="050Y", ViewPosition="PA", ImagerPixelSpacing=[0.1, 0.2], BodyPartExamined="CHEST"
    )
    return save(ds, tmp_path / "good.dcm")


@pytest.fixture
def stuck(tmp_path: Path) -> Path:
    """A file that never ends: a named pipe nobody writes to."""
    path = tmp_path / "stuck"
    os.mkfifo(path)
    return path


def code_of(decoder: Decoder, path: Path) -> str:
    with pytest.raises(RadboxError) as caught:
        decoder.read(path)
    return caught.value.code


def test_the_child_reads_what_the_parent_would_and_stays_warm(decoder: Decoder, good: Path) -> None:
    (here,), (there,) = read_dicom(good), decoder.read(good)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    for name in ("modality", "body_part", "view", "age_years", "spacing_mm", "sop_instance_uid", "frames", "source"):
        assert getattr(there, name) == getattr(here, name)
    pid = decoder.pid
    assert decoder.read(good)[0].view == "PA"
    assert decoder.pid == pid


def test_codecs_cannot_print_into_the_log_of_the_box(decoder: Decoder) -> None:
    decoder.start()
    assert {str(Path(f"/proc/{decoder.pid}/fd/{stream}").readlink()) for stream in (1, 2)} == {os.devnull}


def test_several_frames_and_odd_names(decoder: Decoder, tmp_path: Path) -> None:
    frames = np.arange(3 * 64, dtype=np.uint16).reshape(3, 8, 8)
    path = save(image_object(frames, WindowCenter=96, WindowWidth=192), tmp_path / "Müller \udcff\n.dcm")
    images = decoder.read(path)
    assert [image.frame for image in images] == [0, 1, 2]
    assert images[0].pixels.mean() < images[1].pixels.mean() < images[2].pixels.mean()


def test_errors_of_the_reader_come_through(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    with pytest.raises(DicomError) as caught:
        decoder.read(tmp_path / "text")
    assert caught.value.code == "dicom.malformed"
    assert code_of(decoder, tmp_path / "absent") == "storage.failed"


@pytest.mark.requirement("READ-06")
def test_a_crash_is_an_error_and_the_next_file_is_read(decoder: Decoder, good: Path, stuck: Path) -> None:
    decoder.start()
    pid = decoder.pid
    assert pid is not None

    def crash() -> None:
        with stuck.open("wb"):  # waits until the child has opened it: it is in the middle of reading
            os.kill(pid, signal.SIGSEGV)

    killer = threading.Thread(target=crash)
    killer.start()
    with pytest.raises(DecodeError) as caught:
        decoder.read(stuck)
    killer.join()
    assert caught.value.code == "dicom.decoder-crashed"
    assert "SIGSEGV" in caught.value.message
    assert len(decoder.read(good)) == 1
    assert decoder.pid != pid


def test_a_child_that_died_between_files_is_replaced_without_an_error(decoder: Decoder, good: Path) -> None:
    decoder.start()
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGKILL)
    while psutil.Process(decoder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert len(decoder.read(good)) == 1


@pytest.mark.requirement("READ-06")
def test_a_hang_ends_at_the_timeout(good: Path, stuck: Path) -> None:
    with Decoder(timeout_s=0.3) as decoder:
        decoder.start()
        pid = decoder.pid
        began_s = time.monotonic()
        assert code_of(decoder, stuck) == "dicom.decoder-timeout"
        assert time.monotonic() - began_s < 5.0
        assert not Path(f"/proc/{pid}").exists()
        assert len(decoder.read(good)) == 1


def test_a_child_that_has_grown_is_retired(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Decoder() as decoder:
        decoder.read(good)
        monkeypatch.setattr("edge.reading.decode_child.RETIRE_AT_BYTES", 1024)
        assert len(decoder.read(good)) == 1
        assert decoder.pid is None
        assert len(decoder.read(good)) == 1


@pytest.mark.requirement("READ-06")
def test_memory_is_limited(tmp_path: Path, good: Path) -> None:
    big = save(image_object(np.zeros((5000, 5000), np.uint16)), tmp_path / "big.dcm")
    with Decoder(timeout_s=20.0, memory_bytes=80 * 1024 * 1024) as decoder:
        assert code_of(decoder, big) == "dicom.decoder-memory"
        assert len(decoder.read(good)) == 1


def test_nothing_is_left_behind(good: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    with Decoder() as decoder:
        decoder.read(good)
        pid = decoder.pid
    assert decoder.pid is None
    assert not Path(f"/proc/{pid}").exists()
    assert open_files() == before
    assert len(read_in_child(good, timeout_s=20.0, memory_bytes=1 << 29)) == 1
    assert open_files() == before


def test_the_child_ends_when_its_parent_is_killed(root: Path) -> None:
    program = (
        "from edge.reading.decode_child import Decoder as D; d = D(); d.start(); print(d.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 10
    while running(child):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- a child that lies --------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def facts(**changed: object) -> dict[str, object]:
    plain: dict[str, object] = {
        **dict.fromkeys(("modality", "body_part", "view", "age_years", "spacing_mm", "sop_instance_uid")),
        "frame": 0,
        "frames": 1,
        "colour": False,
        "source": "dicom",
        "shape": [2, 2],
    }
    return {**plain, **changed}


def test_images_and_errors_cross_the_wire(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    sent = Radiograph(pixels=np.full((3, 2), 0.25, np.float32), modality="DX", spacing_mm=(0.1, 0.2), age_years=3.0)
    send_images(theirs, (sent,))
    (found,) = receive_images(ours, time.monotonic() + 5)
    np.testing.assert_array_equal(found.pixels, sent.pixels)
    assert (found.modality, found.spacing_mm, found.age_years) == ("DX", (0.1, 0.2), 3.0)
    send_json(theirs, error_message(DecodeError("too large", code="dicom.too-large")))
    with pytest.raises(DecodeError, match="too large"):
        receive_images(ours, time.monotonic() + 5)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"images": []},
        {"images": "x"},
        {"images": [1]},
        {"images": [facts(shape=[2, -2])]},
        {"images": [facts(shape=[60000, 60000])]},
        {"images": [facts(shape=None)]},
        {"images": [facts(modality=3)]},
        {"images": [facts(spacing_mm=[1.0])]},
        {"images": [facts(pixels=[1])]},
        {"error": 3},
        {"error": {"kind": "SystemExit", "code": "x", "message": "y"}},
    ],
)
def test_nonsense_from_the_child_is_noticed(
    pair: tuple[socket.socket, socket.socket], message: dict[str, object]
) -> None:
    ours, theirs = pair
    send_json(theirs, message)
    theirs.sendall(bytes(16))
    with pytest.raises(WireError):
        receive_images(ours, time.monotonic() + 5)


def test_pixels_out_of_range_long_messages_silence_and_hanging_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    send_json(theirs, {"images": [facts()]})
    theirs.sendall(struct.pack("=4f", 0, 1, float("nan"), 0))
    with pytest.raises(WireError):
        receive_images(ours, time.monotonic() + 5)
    with pytest.raises(TimeoutError):
        receive_images(ours, time.monotonic() + 0.05)
    theirs.sendall(b"\x7f\xff\xff\xff")
    with pytest.raises(WireError):
        receive_images(ours, time.monotonic() + 5)
    theirs.close()
    with pytest.raises(WireError):
        receive_images(ours, time.monotonic() + 5)
