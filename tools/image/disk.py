"""From a folder of files to a disk image, without mounting anything: ESP (mtools), root and data (mke2fs)."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.image.gpt import ESP, LINUX, ROOT_AMD64, Table, lay_out
from tools.image.rootfs import BOOT_LOADERS, DATA_FOLDER, ImageError, run, say

MIB: Final = 1 << 20
ESP_BYTES: Final = 128 * MIB
ROOT_SPARE_BYTES: Final = 512 * MIB  # beside what is there: logs, and the next version of the package
DATA_BYTES: Final = 1024 * MIB  # the least; it grows to the end of the disk at the first start
KERNEL, INITRD, ENTRY = "vmlinuz", "initrd.img", "loader/entries/radbox.conf"
COMMAND_LINE: Final = "ro quiet panic=10 fsck.repair=yes"
TEST_CONSOLE: Final = " console=tty0 console=ttyS0,115200"


@dataclass(frozen=True)
class Ids:
    """Of the partitions; new for each image, so that a box never takes another disk's for its own."""

    disk: uuid.UUID
    esp: uuid.UUID
    root: uuid.UUID
    data: uuid.UUID


def new_ids() -> Ids:
    """Four random ones."""
    return Ids(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), uuid.uuid4())


def fstab(ids: Ids) -> str:
    """What is mounted: root, and the data folder, which grows with its partition."""
    return (
        f"PARTUUID={ids.root} / ext4 noatime,errors=remount-ro 0 1\n"
        f"PARTUUID={ids.data} /{DATA_FOLDER} ext4 "
        "noatime,nodev,nosuid,noexec,data=ordered,errors=remount-ro,x-systemd.growfs 0 2\n"
    )


def loader_entry(ids: Ids, version: str, test: bool) -> str:
    """The one entry of systemd-boot."""
    title = f"radbox {version}" + (" TEST IMAGE: root without a password" if test else "")
    options = f"root=PARTUUID={ids.root} {COMMAND_LINE}" + (TEST_CONSOLE if test else "")
    return f"title {title}\nlinux /{KERNEL}\ninitrd /{INITRD}\noptions {options}\n"


def make_disk(rootfs: Path, out: Path, work: Path, architecture: str, version: str, test: bool) -> Table:
    """Write the image `out` from `rootfs`, whose data folder moves to the partition of its own. Raises ImageError."""
    ids = new_ids()
    (rootfs / "etc/fstab").write_text(fstab(ids))
    esp, root, data = work / "esp.img", work / "root.img", work / "data.img"
    say("writing the three file systems")
    _make_esp(rootfs, esp, architecture, loader_entry(ids, version, test))
    data_folder = rootfs / DATA_FOLDER
    if not data_folder.is_dir():
        raise ImageError(f"expected the package to make /{DATA_FOLDER}, got none")
    _make_ext4(data_folder, data, DATA_BYTES, "radbox-data")
    for path in data_folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    used = int(run("du", "--summarize", "--block-size=1", "--one-file-system", rootfs).split()[0])
    _make_ext4(rootfs, root, used + used // 8 + ROOT_SPARE_BYTES, "radbox-root")
    table = lay_out(
        [
            ("radbox-esp", ESP, ids.esp, esp.stat().st_size),
            ("radbox-root", ROOT_AMD64, ids.root, root.stat().st_size),
            ("radbox-data", LINUX, ids.data, data.stat().st_size),
        ],
        ids.disk,
    )
    _assemble(table, (esp, root, data), out)
    return table


def _make_esp(rootfs: Path, path: Path, architecture: str, entry: str) -> None:
    source, name = BOOT_LOADERS[architecture]
    kernels = sorted((rootfs / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise ImageError(f"expected one kernel in /boot, got {len(kernels)}")
    with path.open("wb") as stream:
        stream.truncate(ESP_BYTES)
    run("mkfs.vfat", "-F", "32", "-n", "RADBOX-ESP", path)
    texts = {"loader/loader.conf": "timeout 0\neditor no\n", ENTRY: entry}
    for folder in ("EFI", "EFI/BOOT", "loader", "loader/entries"):
        run("mmd", "-i", path, f"::{folder}")
    for target, text in texts.items():
        run("mcopy", "-i", path, "-", f"::{target}", input=text)
    initrd = kernels[0].with_name(kernels[0].name.replace("vmlinuz", "initrd.img"))
    for file, target in ((rootfs / source, f"EFI/BOOT/{name}"), (kernels[0], KERNEL), (initrd, INITRD)):
        run("mcopy", "-i", path, file, f"::{target}")
    for file in (kernels[0], initrd):  # they start from the ESP; a second copy would only be mistaken for it
        file.unlink()


def _make_ext4(folder: Path, path: Path, size: int, label: str) -> None:
    with path.open("wb") as stream:
        stream.truncate(-(-size // MIB) * MIB)
    owner = folder.stat()
    run("mkfs.ext4", "-q", "-F", "-L", label, "-m", "1", "-E", f"root_owner={owner.st_uid}:{owner.st_gid}",
        "-d", folder, path)  # fmt: skip
    mode = f"set_inode_field <2> mode 0{owner.st_mode:o}"  # mke2fs leaves out the mode of the folder itself
    run("debugfs", "-w", "-R", mode, path)


def _assemble(table: Table, parts: tuple[Path, ...], out: Path) -> None:
    """Table and parts into `out`, holes kept; under another name until it is whole."""
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as stream:
        stream.truncate(table.disk_bytes)
        stream.write(table.head)
        stream.seek(table.disk_bytes - len(table.tail))
        stream.write(table.tail)
    for partition, part in zip(table.partitions, parts, strict=True):
        run(
            "dd",
            f"if={part}",
            f"of={partial}",
            "bs=1M",
            f"seek={partition.start // MIB}",
            "conv=notrunc,sparse",
            "status=none",
        )
        part.unlink()
    partial.replace(out)
