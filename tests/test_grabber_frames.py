"""The reading process: pictures arrive exactly, and whatever the source does, the box gets over it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from edge.intake.grabber import frames as frames_module
from edge.intake.grabber.frames import Frame, Frames
from edge.intake.grabber.preset import WHOLE_PICTURE
from tests.mjpeg_server import SIZE, MjpegServer, live_picture

STALE_S = 0.5


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses between processes."""
    monkeypatch.setattr(frames_module, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(frames_module, "_LONGEST_PAUSE_S", 0.2)


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer() as one:
        yield one


def opened(source: object, fps: float = 30.0) -> Frames:
    return Frames(str(source), fps, STALE_S, WHOLE_PICTURE)


def until(frames: Frames, condition, timeout_s: float = 15.0) -> None:
    """Serve until `condition()` holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "condition did not become true in time"
        frames.step()
        time.sleep(0.02)


def is_fresh(frames: Frames) -> bool:
    return frames.age_s is not None and frames.age_s < STALE_S and frames.latest() is not None


def video(path: Path, fourcc: str, pictures: int = 12) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 20.0, SIZE)
    assert writer.isOpened()
    for number in range(pictures):
        writer.write(live_picture(number))
    writer.release()
    return path


def test_a_lossless_file_arrives_bit_for_bit(tmp_path: Path) -> None:
    frames = opened(video(tmp_path / "a.avi", "FFV1"))
    try:
        got: list[Frame | None] = [None]

        def arrived() -> bool:
            got[0] = frames.latest()
            return got[0] is not None

        until(frames, arrived)
        assert got[0] is not None
        expected = [live_picture(number) for number in range(12)]
        assert any(np.array_equal(got[0].picture, one) for one in expected)
        assert time.monotonic() - got[0].monotonic_s < 5.0
        until(frames, lambda: frames.count > 14)  # it ended and was opened again
    finally:
        frames.close()
    assert frames.process_id is None


def test_a_motion_jpeg_file_arrives(tmp_path: Path) -> None:
    frames = opened(video(tmp_path / "a.avi", "MJPG"))
    try:
        until(frames, lambda: frames.latest() is not None)
        frame = frames.latest()
        assert frame is None or frame.picture.shape == (SIZE[1], SIZE[0], 3)
    finally:
        frames.close()


def test_a_stream_that_stalls_breaks_off_and_comes_back(server: MjpegServer) -> None:
    frames = opened(server.url)
    try:
        until(frames, lambda: is_fresh(frames))
        assert frames.still_s < 0.5
        for mode in ("stalled", "gone"):
            process_id = frames.process_id
            server.mode = mode
            until(frames, lambda: (frames.age_s or 0) > STALE_S)
            until(frames, lambda: frames.process_id != process_id)  # noqa: B023
            server.mode = "live"
            until(frames, lambda: is_fresh(frames))
        assert server.connections >= 3
    finally:
        frames.close()


def test_identical_pictures_are_told_from_live_ones(server: MjpegServer) -> None:
    frames = opened(server.url)
    try:
        until(frames, lambda: is_fresh(frames))
        server.mode = "frozen"
        until(frames, lambda: frames.still_s > 0.6)
        assert frames.age_s is not None
        assert frames.age_s < STALE_S
        server.mode = "live"
        until(frames, lambda: frames.still_s < 0.3)
    finally:
        frames.close()


@pytest.mark.requirement("RCV-09")
def test_a_process_that_hangs_is_killed_and_one_that_dies_is_replaced(server: MjpegServer) -> None:
    frames = opened(server.url)
    try:
        until(frames, lambda: is_fresh(frames))
        first = frames.process_id
        assert first is not None
        os.kill(first, signal.SIGSTOP)  # as a driver that never returns from read()
        until(frames, lambda: frames.process_id not in (first, None))
        assert not psutil.pid_exists(first)
        until(frames, lambda: is_fresh(frames))
        second = frames.process_id
        assert second is not None
        os.kill(second, signal.SIGKILL)
        until(frames, lambda: frames.process_id not in (second, None))
        until(frames, lambda: is_fresh(frames))
    finally:
        frames.close()


def test_a_source_that_is_not_there_is_tried_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "OPEN_TIMEOUT_S", 0.5)
    path = tmp_path / "later.avi"
    frames = opened(path)
    try:
        assert frames.age_s is None
        until(frames, lambda: frames.age_s is not None)  # nothing came for too long: that is an age, too
        assert frames.latest() is None
        until(frames, lambda: frames._pause_s == 0.2)
        video(path, "FFV1")
        until(frames, lambda: is_fresh(frames))
    finally:
        frames.close()


def test_a_reader_that_is_slow_still_gets_whole_pictures(server: MjpegServer) -> None:
    """Each picture's left edge and its texture belong together, however far the writer is ahead."""
    server.mode = "frozen"
    frames = opened(server.url, fps=60.0)
    try:
        until(frames, lambda: is_fresh(frames))
        still = frames.latest()
        assert still is not None
        for _ in range(5):
            time.sleep(0.15)
            frames.step()
            frame = frames.latest()
            assert frame is not None
            assert np.array_equal(frame.picture, still.picture)
    finally:
        frames.close()


def test_the_address_of_the_source_is_in_no_argument_list(server: MjpegServer) -> None:
    frames = opened(server.url.replace("stream", "stream-seeded-password"))
    try:
        until(frames, lambda: is_fresh(frames))
        assert frames.process_id is not None
        assert "seeded" not in " ".join(psutil.Process(frames.process_id).cmdline())
    finally:
        frames.close()
