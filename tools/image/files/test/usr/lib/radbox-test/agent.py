"""Runs what the VM tests ask for, as root; only in test images. One JSON object a line, over a virtio serial port.

{"id": 1, "sh": "command", "timeout_s": 60} -> {"id": 1, "rc": 0, "out": "stdout and stderr"}; 124 after the time-out.
{"id": 2, "put": "/path", "base64": "..."} -> {"id": 2, "rc": 0, "out": ""}. At its start it says {"hello": boot id}.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path

PORT = Path("/dev/virtio-ports/radbox.test")
SETTINGS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "SYSTEMD_PAGER": "", "COLUMNS": "200"}


def main() -> None:
    """Answer for ever."""
    port = open_port()
    say(port, {"hello": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    buffer = b""
    while True:
        chunk = os.read(port, 1 << 16)
        if not chunk:  # the test's end is closed
            time.sleep(0.1)
            continue
        buffer += chunk
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            say(port, answer(line))


def open_port() -> int:
    """The port by its name, which udev makes; before udev ran, by what the kernel says."""
    while True:
        if PORT.exists():
            return os.open(PORT, os.O_RDWR)
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            device = Path("/dev", name.parent.name)
            if name.read_text().strip() == PORT.name and device.exists():
                return os.open(device, os.O_RDWR)
        time.sleep(0.1)


def answer(line: bytes) -> dict[str, object]:
    """Do one request; a line that is none (left over from before a snapshot) gets an answer nobody waits for."""
    try:
        request = json.loads(line)
        if "put" in request:
            Path(request["put"]).write_bytes(base64.b64decode(request["base64"]))
            return {"id": request["id"], "rc": 0, "out": ""}
        return {"id": request["id"], **run(request["sh"], request["timeout_s"])}
    except (ValueError, KeyError, TypeError, OSError) as error:
        return {"id": -1, "rc": 255, "out": repr(error)}


def run(command: str, timeout_s: float) -> dict[str, object]:
    """One command of a shell, in a session of its own."""
    with subprocess.Popen(
        ["/bin/bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **SETTINGS},
    ) as process:
        try:
            out = process.communicate(timeout=timeout_s)[0]
            return {"rc": process.returncode, "out": out.decode(errors="replace")}
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return {"rc": 124, "out": process.communicate()[0].decode(errors="replace")}


def say(port: int, message: dict[str, object]) -> None:
    """One line; a write may be partial."""
    content = json.dumps(message).encode() + b"\n"
    while content:
        content = content[os.write(port, content) :]


if __name__ == "__main__":
    main()
