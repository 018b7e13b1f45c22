"""One virtual machine: QEMU q35 without KVM, with USB, an emulated hardware watchdog and a network of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.vm.wire import Qmp, Said, Shell, VmError

QEMU: Final = "qemu-system-x86_64"
FIRMWARE: Final = (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd"))
MEMORY_MIB: Final = 2048
DICOM_PORT, WEB_PORT = 11112, 8080  # in the machine
HELLO_S: Final = 900.0  # a boot; the host may be busy
# The chip set's own watchdog is left alone: the one under test is the i6300esb, and which comes first is chance.
ONE_WATCHDOG: Final = "modprobe.blacklist=iTCO_wdt,iTCO_vendor_support"


@dataclass(frozen=True)
class Boot:
    """How the machine starts: `kernel` None means by its firmware (UEFI) from the disk."""

    disk: Path | str  # qcow2 file, or the address of a raw disk on NBD
    kernel: Path | None = None
    initrd: Path | None = None
    options: str = ""
    snapshot: str = ""  # go on from here instead of starting


class Machine:
    """A running machine; `with` ends it, as if the plug was pulled."""

    def __init__(self, boot: Boot, folder: Path) -> None:
        """Start it. folder: new or empty, for sockets and what the machine prints. Raises VmError."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("qmp", "shell"):
            (folder / name).unlink(missing_ok=True)
        self.dicom_port, self.web_port = _free_port(), _free_port()
        self.started_s = time.monotonic()
        with (folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(self._command(boot), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.qmp, self.shell = Qmp(folder / "qmp"), Shell(folder / "shell")
        except (VmError, OSError):
            self.pull_the_plug()
            raise VmError(f"QEMU did not start: {(folder / 'qemu.log').read_text()[-800:]}") from None
        self.qmp.ask("cont")

    def _command(self, boot: Boot) -> list[str]:
        forward = (
            f"hostfwd=tcp:127.0.0.1:{self.dicom_port}-:{DICOM_PORT},hostfwd=tcp:127.0.0.1:{self.web_port}-:{WEB_PORT}"
        )
        command = [QEMU, "-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi,tb-size=512", "-m", str(MEMORY_MIB)]
        command += ["-smp", "2", "-nodefaults", "-display", "none", "-S", "-rtc", "base=utc"]
        if boot.kernel and boot.initrd:
            options = f"{boot.options} {ONE_WATCHDOG}"
            command += ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", options]
        else:
            command += [*_firmware(self.folder)]
        form = "qcow2" if isinstance(boot.disk, Path) else "raw"
        command += ["-drive", f"file={boot.disk},format={form},if=none,id=disk,cache=writeback,discard=unmap"]
        command += ["-device", "virtio-blk-pci,drive=disk,bootindex=1", "-device", "qemu-xhci,id=xhci"]
        command += ["-device", "i6300esb", "-action", "watchdog=reset"]
        command += ["-netdev", f"user,id=lan,restrict=on,{forward}", "-device", "virtio-net-pci,netdev=lan,romfile="]
        command += [
            "-device",
            "virtio-serial-pci",
            "-chardev",
            f"socket,id=shell,path={self.folder / 'shell'},server=on,wait=off",
        ]
        command += ["-device", "virtserialport,chardev=shell,name=radbox.test"]
        command += [
            "-chardev",
            f"file,id=console,path={self.folder / 'console.log'},append=on",
            "-serial",
            "chardev:console",
        ]
        command += ["-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off"]
        return command + (["-loadvm", boot.snapshot] if boot.snapshot else [])

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.pull_the_plug()

    def pull_the_plug(self) -> None:
        """End the machine at once, as a power cut does."""
        self._process.kill()
        self._process.wait()
        for line in ("qmp", "shell"):
            if hasattr(self, line):
                getattr(self, line).line.close()

    def end(self) -> None:
        """Have QEMU close its files and end; the machine itself notices nothing."""
        if not self.ended():
            with contextlib.suppress(VmError, OSError):
                self.qmp.ask("quit")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(60)

    def cpu_s(self) -> float:
        """Processor seconds that QEMU has used: what a start costs, whatever else the host does."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ended(self) -> bool:
        """True once QEMU is gone."""
        return self._process.poll() is not None

    # --- inside ---

    def sh(self, command: str, timeout_s: float = 120.0) -> Said:
        """A bash command as root in the machine."""
        return self.shell.run(command, timeout_s)

    def must(self, command: str, timeout_s: float = 120.0) -> str:
        """The same, whose failure ends the scenario. Raises VmError."""
        said = self.sh(command, timeout_s)
        if said.code:
            raise VmError(f"expected {command!r} to work, got {said.code}: {said.out[-500:]}")
        return said.out

    def hello(self, since: int = 0, timeout_s: float = HELLO_S) -> str:
        """Wait until the machine has started (again); returns its boot id. since: count of news already seen."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.ended():
                raise VmError("expected the machine to start, but QEMU ended")
            with contextlib.suppress(VmError):
                return str(self.shell.line.wait_news("hello", None, since, 5)[1]["hello"])
        raise VmError(f"expected the machine to start within {timeout_s:.0f} s; its console: {self.console()[-600:]}")

    def news_seen(self) -> int:
        """How much the shell said by itself until now, for `hello`."""
        return len(self.shell.line.news)

    def console(self) -> str:
        """Everything printed on the serial console since the machine was made."""
        path = self.folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- devices ---

    def plug_stick(self, image: Path, name: str = "stick", bytes_per_s: int = 0) -> None:
        """Put a USB stick in. bytes_per_s: no more than this is read from it (0: as fast as it goes)."""
        file = {"driver": "file", "filename": str(image)}
        node = f"{name}-disk"
        self.qmp.ask("blockdev-add", **{"driver": "raw", "node-name": f"{name}-raw", "file": file})
        if bytes_per_s:
            limits = {"bps-read": bytes_per_s, "bps-read-max": bytes_per_s}
            self.qmp.ask("object-add", **{"qom-type": "throttle-group", "id": f"{name}-slow", "limits": limits})
            throttle = {
                "driver": "throttle",
                "node-name": node,
                "throttle-group": f"{name}-slow",
                "file": f"{name}-raw",
            }
            self.qmp.ask("blockdev-add", **throttle)
        self.qmp.ask(
            "device_add",
            driver="usb-storage",
            bus="xhci.0",
            id=name,
            removable=True,
            drive=node if bytes_per_s else f"{name}-raw",
        )

    def pull_stick(self, name: str = "stick") -> None:
        """Pull it out, whatever is going on with it."""
        self.qmp.ask("device_del", id=name)

    def free_stick(self, name: str = "stick") -> None:
        """Let go of the image of a stick that was pulled out, so that it may be put in again. Raises VmError."""
        self.qmp.line.wait_news("event", "DEVICE_DELETED", 0, 60)
        nodes = {one["node-name"] for one in self.qmp.ask("query-named-block-nodes", flat=True)}
        for node in (f"{name}-disk", f"{name}-raw"):
            if node in nodes:
                self.qmp.ask("blockdev-del", **{"node-name": node})
        if f"{name}-disk" in nodes:
            self.qmp.ask("object-del", id=f"{name}-slow")


def _firmware(folder: Path) -> list[str]:
    code, settings = FIRMWARE
    own = folder / "uefi-settings.fd"
    own.write_bytes(settings.read_bytes())
    return [
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={own}"),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
