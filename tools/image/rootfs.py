"""The files of the image: a small Debian (cached), the radbox package, the box's settings."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FILES: Final = Path(__file__).parent / "files"
SUITE: Final = "bookworm"
KERNELS: Final = {"amd64": "linux-image-amd64"}
BOOT_LOADERS: Final = {"amd64": ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", "BOOTX64.EFI")}
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "util-linux", "mount", "iproute2"),
    *("e2fsprogs", "dosfstools", "exfatprogs", "initramfs-tools", "zstd", "systemd-boot-efi"),
)
NOT_IN_IMAGE: Final = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
IN_IMAGE: Final = ("/usr/share/doc/*/copyright",)
# apt would look for a network, and nobody can log in on a screen.
MASKED: Final = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
)
ENABLED: Final = ("systemd-networkd.service", "fstrim.timer")
INITRAMFS: Final = ("etc/initramfs-tools/conf.d/radbox", "usr/share/initramfs-tools/modules.d/radbox")
DATA_FOLDER: Final = "var/lib/radbox"
TEST_ENABLED: Final = ("radbox-test-agent.service", "serial-getty@ttyS0.service")


class ImageError(Exception):
    """A step could not be done; the message says which and why."""


def say(sentence: str) -> None:
    """Progress on stderr."""
    sys.stderr.write(f"make_image: {sentence}\n")
    sys.stderr.flush()


def run(*command: str | Path, **settings: object) -> str:
    """Stdout of a command. Raises ImageError with the end of its stderr when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise ImageError(f"expected the command {words[0]}, got none: install its Debian package") from error
    if done.returncode:
        raise ImageError(f"{words[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:].strip()}")
    return str(done.stdout)


def dependencies(depends: str) -> tuple[str, ...]:
    """Package names of a Depends field, sorted; of alternatives the first; versions are left to dpkg."""
    first = (alternatives.split("|")[0] for alternatives in depends.split(",") if alternatives.strip())
    return tuple(sorted({re.split(r"[\s(:]", one.strip(), maxsplit=1)[0] for one in first}))


def packages_for(deb: Path, architecture: str) -> tuple[str, ...]:
    """Everything of Debian that the image holds by name: what it needs to start, and what the package depends on."""
    depends = ",".join(run("dpkg-deb", "--field", deb, field) for field in ("Depends", "Pre-Depends"))
    return tuple(sorted({*PACKAGES, KERNELS[architecture], *dependencies(depends)}))


def base(cache: Path, architecture: str, packages: Sequence[str], fresh: bool) -> Path:
    """The tar file of a Debian with `packages`, made by mmdebstrap unless the cache has it. Needs the network."""
    recipe = [
        SUITE,
        architecture,
        *packages,
        *NOT_IN_IMAGE,
        *((FILES / "product" / one).read_text() for one in INITRAMFS),
    ]
    path = cache / f"base-{architecture}-{hashlib.sha256(chr(0).join(recipe).encode()).hexdigest()[:16]}.tar"
    if path.exists() and not fresh:
        return path
    say(f"making the Debian base with {len(packages)} packages named (minutes; kept in {cache})")
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    hooks = [f'--essential-hook=mkdir -p "$1/{Path(one).parent}"' for one in INITRAMFS]
    hooks += [f'--essential-hook=upload "{FILES / "product" / one}" "/{one}"' for one in INITRAMFS]
    run(
        "mmdebstrap", "--variant=minbase", f"--architectures={architecture}", "--format=tar",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={one}" for one in NOT_IN_IMAGE),
        *(f"--dpkgopt=path-include={one}" for one in IN_IMAGE),
        *hooks, f"--include={','.join(packages)}", SUITE, partial,
    )  # fmt: skip
    partial.rename(path)
    return path


def build(base_tar: Path, deb: Path, folder: Path, test: bool) -> None:
    """Fill `folder` (new) with the system: base, package, settings. Raises ImageError."""
    folder.mkdir()
    run(
        "tar",
        "--extract",
        "--file",
        base_tar,
        "--directory",
        folder,
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
    )
    say("installing the package without a network")
    _install(deb, folder)
    _copy(FILES / "product", folder)
    if test:
        _copy(FILES / "test", folder)
    inside(folder, "systemctl", "--quiet", "enable", *ENABLED, *(TEST_ENABLED if test else ()))
    inside(folder, "systemctl", "--quiet", "mask", *MASKED)
    inside(folder, "passwd", "--quiet", "--lock", "root")
    _forget(folder)


def _install(deb: Path, folder: Path) -> None:
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    shutil.copy(deb, folder / "radbox.deb")
    try:
        inside(folder, "dpkg", "--install", "/radbox.deb")
        if left := inside(folder, "dpkg", "--audit").strip():
            raise ImageError(f"expected every package to be configured, got: {left}")
    finally:
        policy.unlink()
        (folder / "radbox.deb").unlink()


def inside(folder: Path, *command: str) -> str:
    """Run in the new system, which sees no network, no other process and none of our environment."""
    settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    unshare = ("unshare", "--mount", "--net", "--pid", "--fork", "--uts", "--ipc", f"--mount-proc={folder / 'proc'}")
    return run(*unshare, "chroot", folder, *command, env=settings)


def _copy(source: Path, folder: Path) -> None:
    """Settings from the repository, as root's and readable by all, whoever checked them out."""
    for path in sorted(source.rglob("*")):
        target = folder / path.relative_to(source)
        if path.is_dir():
            target.mkdir(mode=0o755, exist_ok=True)
            continue
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o644)
        os.chown(target, 0, 0)


def _forget(folder: Path) -> None:
    """What must differ from box to box, or leads out of it: identity, seeds, package sources, left-overs."""
    (folder / "etc/machine-id").write_text("")
    for name in ("etc/apt/sources.list", "var/lib/systemd/random-seed", "var/lib/dbus/machine-id", "etc/resolv.conf"):
        (folder / name).unlink(missing_ok=True)
    for name in ("var/lib/apt/lists", "var/cache/apt", "var/log", "tmp", "run", "etc/apt/sources.list.d"):
        for path in (folder / name).iterdir() if (folder / name).is_dir() else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / "var/log/journal").mkdir(mode=0o755)
