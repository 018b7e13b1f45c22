"""What radbox-update@.service runs, as root, for one partition of a USB stick; nothing else that it brings needs root.

    check bus and file system -> mount ro,nodev,nosuid,noexec -> install the update, as the owner of the data folder
        -> import the images, as the same -> remount rw only to write the receipt -> unmount

A stick without EDGE-UPDATE that has images on it is no failed update: nobody is told of one. Whatever becomes of the
import, the update's outcome and its receipt stay as they are. The unit gives it a mount namespace of its own
(PrivateMounts), so nothing else on the box ever sees the stick.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edge.board import load_board
from edge.care.update.receipt import Receipt, deliver
from edge.care.update.stick import TOP
from edge.durable import make_directory
from edge.errors import RadboxError, UpdateError
from edge.service import setup_logging
from edge.store import database_key

FILE_SYSTEMS: Final = ("vfat", "exfat")
SAFE: Final = "nodev,nosuid,noexec"
READABLE: Final = 0o022  # umask while mounting: vfat and exfat take their modes from it, and the owner must read
TOOL_TIMEOUT_S: Final = 60.0
IMPORT_TIMEOUT_S: Final = 50 * 60.0  # the import itself ends after 45 minutes
_DEVICE = re.compile(r"[a-z0-9]{2,32}")
_log = logging.getLogger("radbox.update")


def main(arguments: Sequence[str] | None = None) -> int:
    """Handle one partition; 0 once the outcome was told, whatever it was, 1 if it could not be."""
    parser = argparse.ArgumentParser("radbox-update", description=__doc__.splitlines()[0])
    parser.add_argument("device", help="kernel's name of the partition, such as sda1")
    parser.add_argument("--board", type=Path, default=os.environ.get("RADBOX_BOARD"), help="board file")
    parsed = parser.parse_args(arguments)
    setup_logging("update")
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if not _DEVICE.fullmatch(parsed.device) or parsed.board is None or not runtime:
        parser.error("expected a partition, a board file and RUNTIME_DIRECTORY from systemd")
    try:
        return serve(Path(parsed.board), Path("/dev", parsed.device), Path(runtime, "stick"))
    except RadboxError as error:
        _log.error("%s: %s", error.code, error.message)
        return 1


def serve(board_file: Path, device: Path, mount_point: Path, sys_folder: Path = Path("/sys")) -> int:
    """Take what is on `device`, or refuse it; the outcomes are told by the sessions that read it.

    Raises UpdateError (update.failed) when the session of the update did not answer, ConfigError.
    """
    try:
        file_system = check_device(device, sys_folder)
        with _mounted(device, file_system, mount_point):
            _read(board_file, mount_point)
    except _Refused as error:
        _session(board_file, "refuse", error.code, error.message)
    return 0


def _read(board_file: Path, mount_point: Path) -> None:
    """The update first, then the images; the other way round where there is no update, unless there are none either."""
    importing = load_board(board_file).stick.import_images
    update_first = not importing or os.path.lexists(mount_point / TOP)
    if not update_first and _import(board_file, mount_point):
        return
    answer = _session(board_file, "install", str(mount_point))
    try:
        if importing and update_first:
            _import(board_file, mount_point)
    finally:
        _write_receipt(answer, mount_point)


class _Refused(UpdateError):
    """The device itself is refused, before anything of it was read."""

    default_code = "update.file-system"


def _refused(device: Path, message: str) -> _Refused:
    """A stick that was pulled out meanwhile is no bad stick: the kernel takes its node away at once."""
    if device.exists():
        return _Refused(message)
    return _Refused("expected the stick to be there, got none", code="update.stick-removed")


def check_device(device: Path, sys_folder: Path) -> str:
    """The file system on `device`, which is one of FILE_SYSTEMS and on the USB bus.

    Asked of the kernel and of the bytes (blkid --probe), not of what a rule or a cache says. Raises UpdateError:
    update.file-system, update.stick-removed.
    """
    found = _tool("blkid", "--probe", "--match-tag", "TYPE", "--output", "value", str(device)).stdout.strip()
    if found not in FILE_SYSTEMS:
        shown = found if found.isalnum() else "none that is known"
        raise _refused(device, f"expected a file system of {' or '.join(FILE_SYSTEMS)}, got {shown}")
    try:
        number = device.stat().st_rdev
        place = (sys_folder / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}").resolve(strict=True)
    except OSError as error:
        raise _Refused("expected the stick to be there, got none", code="update.stick-removed") from error
    if not re.search(r"/usb\d+/", str(place)):
        raise _refused(device, "expected a stick on the USB bus, got another device")
    return found


@contextmanager
def _mounted(device: Path, file_system: str, mount_point: Path) -> Iterator[None]:
    make_directory(mount_point)
    done = _tool("mount", "-t", file_system, "-o", f"ro,{SAFE}", str(device), str(mount_point))
    if done.returncode:
        raise _refused(device, f"expected the stick's file system to be whole, got: mount status {done.returncode}")
    try:
        yield
    finally:
        if _tool("umount", str(mount_point)).returncode:  # pulled out, or still busy: let go of it
            _tool("umount", "--lazy", str(mount_point))


def _session(board_file: Path, *arguments: str) -> dict[str, Any]:
    """Run the session of the update. Raises UpdateError: update.failed."""
    return _as_owner(board_file, "edge.care.update.session", None, *arguments)


def _import(board_file: Path, mount_point: Path) -> bool:
    """Run the session of the import; True if there was something to import. Raises nothing that it could cause."""
    session = "edge.intake.stick.session"
    try:
        answer = _as_owner(board_file, session, IMPORT_TIMEOUT_S, str(mount_point))
    except UpdateError as error:
        _log.error("the import of images: %s", error.message)
        try:
            answer = _as_owner(board_file, session, TOOL_TIMEOUT_S, "--failed")
        except UpdateError:
            return False
    return bool(answer["found"])


def _as_owner(board_file: Path, module: str, timeout_s: float | None, *arguments: str) -> dict[str, Any]:
    """The last line that a module prints, run as the owner of the data folder. Raises UpdateError: update.failed."""
    command = [sys.executable, "-m", module, str(board_file), *arguments]
    try:
        done = subprocess.run(
            command,
            input=database_key() or b"",
            stdout=subprocess.PIPE,
            check=False,
            timeout=timeout_s,
            **_owner(board_file),
        )
        answer = dict(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired as error:
        raise UpdateError("expected the session to end in time, got none", code="update.failed") from error
    except (IndexError, ValueError) as error:
        message = f"expected the session to answer, got status {done.returncode}"
        raise UpdateError(message, code="update.failed") from error
    _log.info("%s: %s", answer["code"], answer["message"])
    return answer


def _owner(board_file: Path) -> dict[str, Any]:
    """Who the session runs as: the owner of the data folder, if that is not us already."""
    folder = load_board(board_file).data_dir
    owner = folder.stat() if folder.exists() else None
    if owner is None or owner.st_uid == os.geteuid():
        return {}
    try:
        groups = os.getgrouplist(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:
        groups = [owner.st_gid]
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": groups}


def _write_receipt(answer: dict[str, Any], mount_point: Path) -> None:
    """Writing is allowed for this alone; a stick that does not take it changes nothing about the update."""
    if not answer["receipt"]:
        return
    done = _tool("mount", "-o", f"remount,rw,{SAFE}", str(mount_point))
    if done.returncode:
        _log.warning("no receipt on the stick: mount status %d", done.returncode)
        return
    try:
        deliver(mount_point, Receipt(answer["receipt"]["name"], answer["receipt"]["content"].encode()))
    except RadboxError as error:
        _log.warning("no receipt on the stick: %s", error.message)


def _tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A tool of the system; one that hangs on a broken stick counts as failed."""
    try:
        return subprocess.run(
            [name, *arguments], capture_output=True, text=True, check=False, umask=READABLE, timeout=TOOL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess([name, *arguments], 1, "", "")


if __name__ == "__main__":
    sys.exit(main())
