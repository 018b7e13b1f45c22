"""The parts of tools/make_image that need neither root nor a virtual machine."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

from tools.image import main as make_image
from tools.image.disk import fstab, loader_entry, new_ids
from tools.image.gpt import ALIGN_BYTES, ESP, LINUX, SECTOR_BYTES, Table, lay_out
from tools.image.main import newest_deb
from tools.image.rootfs import FILES, dependencies
from tools.image.sbom import DebPackage, installed, licences_of, merge

MIB = 1 << 20
DEP5 = """\
Format: https://example.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: thing

Files: *
Copyright: 2020 Somebody
License: GPL-2+

Files: lib/*
Copyright: 2020 Somebody else
License: Expat
 Permission is hereby granted.

License: GPL-2+
 On Debian systems the text is in a file.
"""
STATUS = """\
Package: thing
Status: install ok installed
Version: 1:2.0+dfsg-1
Architecture: amd64
Description: a thing
 with more words

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all

Package: other
Status: install ok installed
Source: others (3)
Version: 3.1
Architecture: all
"""


def table(*sizes: int) -> Table:
    """Partitions p0, p1 ... of these sizes."""
    return lay_out([(f"p{number}", LINUX, uuid.uuid4(), size) for number, size in enumerate(sizes)], uuid.uuid4())


def write(table: Table, path: Path) -> Path:
    """An empty disk with this table."""
    with path.open("wb") as disk:
        disk.truncate(table.disk_bytes)
        disk.write(table.head)
        disk.seek(table.disk_bytes - len(table.tail))
        disk.write(table.tail)
    return path


# --- the partition table ---


def test_partitions_are_aligned_rounded_up_and_follow_each_other() -> None:
    first, second = table(1, 3 * MIB + 1).partitions
    assert (first.start, first.size) == (ALIGN_BYTES, MIB)
    assert (second.start, second.size) == (2 * MIB, 4 * MIB)


def test_both_headers_carry_right_checksums_and_name_each_other() -> None:
    made = table(MIB, MIB)
    primary, backup = made.head[SECTOR_BYTES : 2 * SECTOR_BYTES], made.tail[-SECTOR_BYTES:]
    last = made.disk_bytes // SECTOR_BYTES - 1
    for header, own, other in ((primary, 1, last), (backup, last, 1)):
        assert header[:8] == b"EFI PART"
        assert int.from_bytes(header[16:20], "little") == zlib.crc32(header[:16] + b"\0" * 4 + header[20:92])
        assert int.from_bytes(header[24:32], "little") == own
        assert int.from_bytes(header[32:40], "little") == other
        assert int.from_bytes(header[88:92], "little") == zlib.crc32(made.head[2 * SECTOR_BYTES :])


def test_an_entry_holds_kind_id_place_and_name() -> None:
    kind, partition = ESP, uuid.uuid4()
    entry = lay_out([("radbox-esp", kind, partition, 5 * MIB)], uuid.uuid4()).head[2 * SECTOR_BYTES :][:128]
    assert (entry[:16], entry[16:32]) == (kind.bytes_le, partition.bytes_le)
    assert int.from_bytes(entry[32:40], "little") == MIB // SECTOR_BYTES
    assert int.from_bytes(entry[40:48], "little") == 6 * MIB // SECTOR_BYTES - 1
    assert entry[56:].decode("utf-16-le").rstrip("\0") == "radbox-esp"


def test_the_kernel_s_own_tools_read_the_table(tmp_path: Path) -> None:
    made = table(64 * MIB, 3 * MIB)
    disk = write(made, tmp_path / "disk.img")
    for number, partition in enumerate(made.partitions, start=1):
        command = [
            "partx",
            "--show",
            "--nr",
            str(number),
            "--noheadings",
            "--output",
            "START,SECTORS,NAME,UUID",
        ]
        words = subprocess.run([*command, disk], capture_output=True, text=True, check=True).stdout.split()
        place = [str(partition.start // SECTOR_BYTES), str(partition.size // SECTOR_BYTES)]
        assert words == [*place, partition.name, str(partition.id)]


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        [("a", LINUX, uuid.uuid4(), 0)],
        [("", LINUX, uuid.uuid4(), MIB)],
        [("n" * 37, LINUX, uuid.uuid4(), MIB)],
        [("a", LINUX, uuid.uuid4(), MIB), ("a", LINUX, uuid.uuid4(), MIB)],
        [("a", LINUX, LINUX, MIB), ("b", LINUX, LINUX, MIB)],
        [(str(number), LINUX, uuid.uuid4(), MIB) for number in range(129)],
    ],
)
def test_a_table_that_cannot_be_is_refused(wanted: list[tuple[str, uuid.UUID, uuid.UUID, int]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        lay_out(wanted, uuid.uuid4())


# --- what is in the image ---


def test_mounts_and_command_line_name_the_partitions_by_their_own_ids() -> None:
    ids = new_ids()
    assert f"PARTUUID={ids.root} / ext4" in fstab(ids)
    (data,) = [line for line in fstab(ids).splitlines() if "/var/lib/radbox" in line]
    assert data.startswith(f"PARTUUID={ids.data} ")
    assert {"nodev", "nosuid", "noexec", "data=ordered"} <= set(data.split()[3].split(","))
    assert f"root=PARTUUID={ids.root} ro" in loader_entry(ids, "1.0", test=False)
    assert "panic=10" in loader_entry(ids, "1.0", test=False)


def test_only_a_test_image_has_a_console_and_says_what_it_is() -> None:
    ids = new_ids()
    assert "ttyS0" not in loader_entry(ids, "1.0", test=False)
    assert "TEST" not in loader_entry(ids, "1.0", test=False)
    entry = loader_entry(ids, "1.0", test=True)
    assert "console=ttyS0" in entry
    assert "TEST IMAGE" in entry


def test_nothing_of_the_test_s_lies_among_the_product_s_files() -> None:
    product = [path.relative_to(FILES / "product") for path in (FILES / "product").rglob("*") if path.is_file()]
    assert product
    assert not [
        path for path in product if "test" in str(path) or "autologin" in (FILES / "product" / path).read_text()
    ]


def test_the_first_of_alternatives_is_taken_and_versions_are_left_out() -> None:
    depends = "python3 (>= 3.11), python3 (<< 3.12), debconf (>= 0.5) | debconf-2.0, libc6:any, mount"
    assert dependencies(depends) == ("debconf", "libc6", "mount", "python3")
    assert dependencies("") == ()


# --- the bill of materials ---


def test_licences_are_read_where_a_machine_can(tmp_path: Path) -> None:
    (tmp_path / "copyright").write_text(DEP5)
    assert licences_of(tmp_path / "copyright") == ("Expat", "GPL-2+")
    (tmp_path / "prose").write_text("This is free software.\nLicense: none that a machine can read\n")
    assert licences_of(tmp_path / "prose") == ()
    assert licences_of(tmp_path / "missing") == ()


def test_only_installed_packages_are_listed(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "usr/share/doc/thing").mkdir(parents=True)
    (tmp_path / "usr/share/doc/thing/copyright").write_text(DEP5)
    assert installed(tmp_path) == [
        DebPackage("other", "3.1", "all", "others", ()),
        DebPackage("thing", "1:2.0+dfsg-1", "amd64", "thing", ("Expat", "GPL-2+")),
    ]


def test_the_package_s_list_and_debian_s_become_one() -> None:
    numpy = {"type": "library", "name": "numpy", "version": "2", "purl": "pkg:pypi/numpy@2", "bom-ref": "numpy"}
    own = {"type": "application", "name": "radbox", "version": "0.2.0", "bom-ref": "radbox"}
    need = {"type": "library", "name": "thing", "purl": "pkg:deb/debian/thing", "bom-ref": "need:thing (>= 1)"}
    links = [{"ref": "radbox", "dependsOn": ["need:thing (>= 1)", "numpy"]}]
    package = {"metadata": {"component": own}, "components": [need, numpy], "dependencies": links}
    debian = [
        DebPackage("radbox", "0.2.0", "amd64", "radbox", ()),
        DebPackage("thing", "1+b1", "amd64", "thing", ("Expat",)),
        DebPackage("prose", "1", "all", "prose", ()),
    ]
    bill = merge(package, debian, "0.2.0")
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    names = [one["name"] for one in bill["components"]]
    assert names == ["radbox", "numpy", "thing", "prose"]
    thing, prose = bill["components"][2:]
    assert thing["purl"] == "pkg:deb/debian/thing@1%2Bb1?arch=amd64"
    assert thing["licenses"] == [{"license": {"name": "Expat"}}]
    assert "licenses" not in prose
    assert any("copyright" in one["value"] for one in prose["properties"])
    refs = [one["bom-ref"] for one in bill["components"]]
    assert len(set(refs)) == len(refs)
    assert bill["dependencies"] == [{"ref": "radbox", "dependsOn": ["numpy", thing["purl"]]}]
    assert links[0]["dependsOn"] == ["need:thing (>= 1)", "numpy"]  # what came in is as it was


def test_one_state_makes_one_bill() -> None:
    debian = [DebPackage("thing", "1", "amd64", "thing", ())]
    assert json.dumps(merge(None, debian, "1")) == json.dumps(merge(None, debian, "1"))
    assert merge(None, debian, "1")["serialNumber"] != merge(None, [], "1")["serialNumber"]


# --- the command line ---


def test_a_package_that_is_not_there_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_image.main(["--deb", str(tmp_path / "none.deb")])
    assert ended.value.code == 2
    assert "expected a radbox package" in capsys.readouterr().err


def test_an_unknown_architecture_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_image.main(["--arch", "vax"])
    assert ended.value.code == 2
    assert "vax" in capsys.readouterr().err


def test_the_newest_package_is_the_default(tmp_path: Path) -> None:
    assert newest_deb(tmp_path / "nowhere", "amd64") is None
    for age, name in enumerate(("radbox_2_amd64.deb", "radbox_1_amd64.deb", "radbox_3_arm64.deb")):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1_000_000_000 - age, 1_000_000_000 - age))
    found = newest_deb(tmp_path, "amd64")
    assert found is not None
    assert found.name == "radbox_2_amd64.deb"
