"""Bundles of system images: made by `tools/make_os_bundle`, judged by Debian's RAUC under the boards' own settings."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"
RAUC = TOOLS / "rauc"
LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

needs_rauc = pytest.mark.skipif(
    not all(map(shutil.which, ("rauc", "mksquashfs", "openssl"))), reason="needs rauc, squashfs-tools and openssl"
)


def run(
    *command: object, environment: dict[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


# --- bundles ---


@dataclass(frozen=True)
class Release:
    """A bundle with the keys that signed it."""

    folder: Path
    keys: Path
    bundle: Path

    def make(self, out: str, board: str = "pi", version: str = "1.4.0") -> subprocess.CompletedProcess[str]:
        keys = ("--cert", self.keys / "signer.pem", "--key", self.keys / "signer.key.pem")
        images = ("--rootfs", self.folder / "rootfs.img", *(("--boot", self.folder / "boot.img") * (board == "pi")))
        what = ("--board", board, "--version", version, *images, *keys, "--keyring", self.keys / "ca.pem")
        return run(TOOLS / "make_os_bundle", *what, "--out", self.folder / out, check=False)

    def info(
        self, bundle: Path, keys: Path | None = None, board: str = "pi", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`rauc info` under the board's own system.conf, with the keyring of `keys`."""
        return self.rauc("info", bundle, keys=keys, board=board, environment=environment)

    def rauc(
        self, *words: object, keys: Path | None = None, board: str = "pi", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Any command of it."""
        config = self.folder / f"{board}.conf"
        text = (RAUC / board / "system.conf").read_text()
        text = text.replace("/usr/share/radbox/os/ca.pem", str((keys or self.keys) / "ca.pem"))
        config.write_text(text.replace("/data/os/rauc", str(self.folder / "data")))
        return run("rauc", "--conf", config, *words, check=False, environment=environment)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("rauc")
    chance = random.Random(1)
    (folder / "rootfs.img").write_bytes(chance.randbytes(400_000))
    (folder / "boot.img").write_bytes(chance.randbytes(100_000))
    run(TOOLS / "make_os_bundle", "--test-keys", folder / "keys")
    made = Release(folder, folder / "keys", folder / "a.raucb")
    done = made.make("a.raucb")
    assert done.returncode == 0, done.stderr
    return made


@needs_rauc
def test_bundle_verifies(release: Release) -> None:
    done = release.info(release.bundle)
    assert done.returncode == 0, done.stderr
    for words in ("'radbox-pi'", "'1.4.0'", "verity", "rootfs.img", "boot.vfat", "install-check"):
        assert words in done.stdout
    assert release.make("jetson.raucb", board="jetson").returncode == 0
    assert "'radbox-jetson'" in release.info(release.folder / "jetson.raucb", board="jetson").stdout


@needs_rauc
def test_another_organisation_is_refused(release: Release) -> None:
    run(TOOLS / "make_os_bundle", "--test-keys", release.folder / "others")
    done = release.info(release.bundle, release.folder / "others")
    assert done.returncode != 0
    assert "Verify error" in done.stderr


@needs_rauc
def test_plain_bundles_are_refused(release: Release, tmp_path: Path) -> None:
    """Only verity: each block is checked when it is read, also on a stick that lies the second time."""
    (tmp_path / "content").mkdir()
    shutil.copy(release.folder / "rootfs.img", tmp_path / "content")
    manifest = "[update]\ncompatible=radbox-pi\nversion=1\n[image.rootfs]\nfilename=rootfs.img\n"
    (tmp_path / "content" / "manifest.raucm").write_text(manifest)
    keys = ("--cert", release.keys / "signer.pem", "--key", release.keys / "signer.key.pem")
    run("rauc", *keys, "bundle", tmp_path / "content", tmp_path / "plain.raucb")
    done = release.info(tmp_path / "plain.raucb")
    assert done.returncode != 0
    assert "not allowed" in done.stderr


@needs_rauc
def test_the_ca_itself_may_not_sign(release: Release) -> None:
    keys = (
        "--cert",
        release.keys / "ca.pem",
        "--key",
        release.keys / "ca.key.pem",
        "--keyring",
        release.keys / "ca.pem",
    )
    images = ("--rootfs", release.folder / "rootfs.img", "--boot", release.folder / "boot.img")
    out = release.folder / "ca.raucb"
    done = run(TOOLS / "make_os_bundle", "--board", "pi", "--version", "1.0", *images, *keys, "--out", out, check=False)
    assert done.returncode != 0
    assert not out.exists()


@needs_rauc
def test_flipped_bytes_are_refused(release: Release, tmp_path: Path) -> None:
    """In the signature and the signed manifest by `rauc info`; in the images by the hash tree, as the kernel does."""
    content = bytearray(release.bundle.read_bytes())
    (signature_bytes,) = struct.unpack(">Q", content[-8:])
    start = len(content) - 8 - signature_bytes
    manifest = content.find(b"verity-hash=", start)
    chance = random.Random(3)
    places = [manifest + 15, len(content) - 1, *(chance.randrange(start, start + signature_bytes) for _ in range(12))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "changed.raucb").write_bytes(changed)
        done = release.info(tmp_path / "changed.raucb")
        # A certificate in the signature may carry bits that nobody signs; the manifest is what it was then.
        if done.returncode == 0:
            assert release.info(release.bundle).stdout == done.stdout
    (tmp_path / "changed.raucb").write_bytes(content[:manifest] + b"verity-hash=0" + content[manifest + 13 :])
    assert release.info(tmp_path / "changed.raucb").returncode != 0
    (tmp_path / "changed.raucb").write_bytes(content[:-4096])
    assert release.info(tmp_path / "changed.raucb").returncode != 0
    for number, place in enumerate((0, 5000, start // 2, start - 10_000)):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "changed.raucb").write_bytes(changed)
        done = release.rauc("extract", tmp_path / "changed.raucb", tmp_path / f"out{number}")
        assert done.returncode != 0
        assert "corrupt" in done.stderr
    done = release.rauc("extract", release.bundle, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "rootfs.img").read_bytes() == (release.folder / "rootfs.img").read_bytes()


@needs_rauc
@pytest.mark.skipif(LIBFAKETIME is None, reason="needs Debian's libfaketime")
@pytest.mark.parametrize("clock", ["1970-01-02 00:00:00", "2020-01-01 00:00:00", "2090-06-01 00:00:00"])
def test_no_clock_makes_an_honest_update_impossible(release: Release, clock: str) -> None:
    faked = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": f"@{clock}"}
    assert run("date", "+%Y", environment=faked).stdout.strip() == clock[:4]
    done = release.info(release.bundle, environment=faked)
    assert done.returncode == 0, done.stderr


@needs_rauc
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--board", "amiga"),
        ("--board", "pi", "--version", "new"),
        ("--board", "pi", "--version", "1.0", "--rootfs", "none"),
        ("--board",),
    ],
)
def test_make_os_bundle_says_what_it_wants(arguments: Sequence[str]) -> None:
    done = run(TOOLS / "make_os_bundle", *arguments, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("make_os_bundle: expected")


def test_newer_settings_are_kept_apart() -> None:
    """Debian 12's RAUC refuses unknown keys: what only later versions know must stay out of system.conf."""
    for board in ("pi", "jetson"):
        text = (RAUC / board / "system.conf").read_text()
        for line in ("bundle-formats=-plain", "use-bundle-signing-time=true", "bootloader=custom"):
            assert line in text
        assert "min-bundle-version" not in text
        assert "[log." not in text


def test_scripts_are_sound() -> None:
    scripts = [path for path in RAUC.rglob("*") if path.is_file() and path.read_text().startswith("#!")]
    assert len(scripts) == 8
    for script in (*scripts, TOOLS / "make_os_bundle", RAUC / "os" / "backend.sh"):
        run("bash", "-n", script)
        assert script.suffix == ".sh" or os.access(script, os.X_OK), script
