"""The list of software: what it is made from, and the page that shows it."""

from __future__ import annotations

import asyncio
import email
import hashlib
import importlib.util
import json
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from edge.desk.sbom_pages import SbomPages
from tools.deb import licences, sbom
from tools.deb.tree import ROOT

BUNDLE = ROOT / "models" / "bundles" / "chest"
NEEDS = ["python3 (>= 3.11)", "debconf (>= 0.5) | debconf-2.0"]


def metadata(*lines: str) -> Message:
    """Of a distribution."""
    return email.message_from_string("\n".join(["Metadata-Version: 2.4", *lines]))


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """The list of a small package: radbox, one wheel that brings a library along, kernels, the real model."""
    site = tmp_path / "package" / "opt/radbox/lib/python3.11/site-packages"
    for name, version, words in (
        ("radbox", "0.2.0", "License-Expression: Apache-2.0"),
        ("pylibjpeg_libjpeg", "2.5.0", "License: GPL V3.0"),
        ("opencv_python_headless", "5.0", "License: Apache 2.0"),
    ):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\nSummary: one\n{words}\n")
    (site / "edge").mkdir()
    (site / "edge" / "libradbox_kernels.so").write_bytes(b"kernels")
    (site / "edge" / "libradbox_tflite.so").write_bytes(b"delegate")
    (site / "opencv_python_headless.libs").mkdir()
    (site / "opencv_python_headless.libs" / "libavcodec-1234.so.62").write_bytes(b"ffmpeg")
    (tmp_path / "package/opt/radbox/models").mkdir()
    (tmp_path / "package/opt/radbox/models/chest").symlink_to(BUNDLE)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "pylibjpeg_libjpeg-2.5.0-cp311-cp311-manylinux_2_28_x86_64.whl").write_bytes(b"wheel")
    return sbom.package_sbom(tmp_path / "package", wheels, NEEDS, "0.2.0", 1_700_000_000)


def component(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The one of that name."""
    (found,) = (one for one in document["components"] if one["name"] == name)
    return dict(found)


@pytest.mark.requirement("SEC-09")
def test_each_part_has_version_licence_and_hash(document: dict[str, Any]) -> None:
    libjpeg = component(document, "pylibjpeg-libjpeg")
    assert libjpeg["purl"] == "pkg:pypi/pylibjpeg-libjpeg@2.5.0"
    assert libjpeg["licenses"] == [{"expression": "GPL-3.0-only"}]
    assert libjpeg["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"wheel").hexdigest()}]
    (ffmpeg,) = component(document, "opencv-python-headless")["components"]
    assert ffmpeg["licenses"] == [{"expression": "LGPL-2.1-or-later"}]
    assert component(document, "libradbox_kernels.so")["hashes"][0]["content"] == hashlib.sha256(b"kernels").hexdigest()
    assert component(document, "python3")["purl"] == "pkg:deb/debian/python3?distro=debian-12"
    assert document["metadata"]["component"]["name"] == "radbox"
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_the_model_is_named_by_its_signed_manifest(document: dict[str, Any]) -> None:
    manifest = json.loads((BUNDLE / "manifest.json").read_text())
    model = component(document, manifest["id"])
    assert model["type"] == "machine-learning-model"
    assert model["hashes"][0]["content"] == hashlib.sha256((BUNDLE / "manifest.json").read_bytes()).hexdigest()
    hashes = {one["name"]: one["hashes"][0]["content"] for one in model["components"]}
    assert hashes.items() >= manifest["files"].items()


@pytest.mark.skipif(not importlib.util.find_spec("cyclonedx"), reason="needs cyclonedx-python-lib[json-validation]")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.requirement("SEC-09")
def test_it_is_valid_cyclonedx(document: dict[str, Any]) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    broken = {**document, "specVersion": 1.6}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_the_same_package_gives_the_same_list(document: dict[str, Any], tmp_path: Path) -> None:
    again = sbom.package_sbom(tmp_path / "package", tmp_path / "wheels", NEEDS, "0.2.0", 1_700_000_000)
    assert sbom.encode(again) == sbom.encode(document)


def test_an_image_has_its_debian_packages_in_their_versions(document: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / sbom.INSTALLED).parent.mkdir(parents=True)
    (root / sbom.INSTALLED).write_bytes(sbom.encode(document))
    (root / "var/lib/dpkg").mkdir(parents=True)
    fields = "Maintainer: x\nDescription: x\nArchitecture: amd64\n"
    (root / "var/lib/dpkg/status").write_text(
        f"Package: libstdc++6\nStatus: install ok installed\nVersion: 12.2.0-14\n{fields}\n"
        f"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n{fields}\n"
    )
    copyright_file = root / "usr/share/doc/libstdc++6/copyright"
    copyright_file.parent.mkdir(parents=True)
    form = "Format: https://example.org/doc/packaging-manuals/copyright-format/1.0/"
    copyright_file.write_text(f"{form}\n\nFiles: *\nLicense: GPL-3+ with GCC exception\n\nFiles: x\nLicense: MIT\n")
    image = sbom.image_sbom(root, "0.2.0", 1_700_000_000)
    library = component(image, "libstdc++6")
    assert library["version"] == "12.2.0-14"
    assert library["purl"] == "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=debian-12"
    assert [one["license"]["name"] for one in library["licenses"]] == ["GPL-3+ with GCC exception", "MIT"]
    names = [one["name"] for one in image["components"]]
    assert "radbox" in names
    assert "gone" not in names
    assert "python3" not in names  # the need is answered by what is installed


def test_every_licence_is_known_or_stops_the_build() -> None:
    own = metadata("License-Expression: MIT-0", "License: BSD")
    assert licences.of_distribution("cffi", own) == "MIT-0"
    by_classifier = metadata("Classifier: License :: OSI Approved :: MIT License")
    assert licences.of_distribution("pydicom", by_classifier) == "MIT"
    assert licences.of_distribution("Jinja2", metadata("License: see file")) == "BSD-3-Clause"
    with pytest.raises(SystemExit, match="licence of unheard-of is not known"):
        licences.of_distribution("unheard-of", metadata("License: see file"))
    assert licences.of_bundled("libavif-43e630fc.so.16") == "BSD-2-Clause"  # not what libav is under
    with pytest.raises(SystemExit, match="libother"):
        licences.of_bundled("libother.so.1")


class Frame:
    """What the page needs of the desk: here only the context that it hands to the template."""

    def render(self, template: str, **context: Any) -> str:
        assert template == "sbom.html"
        parts = [part for _, group in context["groups"] for part in group]
        return json.dumps([[part.name, part.licence, part.within, part.source_open] for part in parts])

    def answer(self, _request: Request, content: str) -> Response:
        return HTMLResponse(content)


def ask(path: Path, *addresses: str) -> list[httpx.Response]:
    """What the pages over the list at `path` answer."""

    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Starlette(routes=SbomPages(Frame(), path).routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
            return [await client.get(address) for address in addresses]

    return asyncio.run(answers())


def test_the_page_marks_what_must_be_offered_as_source(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "sbom.cdx.json"
    path.write_bytes(sbom.encode(document))
    page, as_json = ask(path, "/about/software", "/about/software.json")
    rows = {row[0]: row[1:] for row in page.json()}
    assert rows["pylibjpeg-libjpeg"] == ["GPL-3.0-only", "", True]
    assert rows["libavcodec-1234.so.62"] == ["LGPL-2.1-or-later", "opencv-python-headless", True]
    assert rows["opencv-python-headless"][2] is False
    assert "encoder.tflite" not in rows
    assert as_json.json() == document


def test_a_source_folder_says_that_it_has_no_list(tmp_path: Path) -> None:
    page, as_json = ask(tmp_path / "none", "/about/software", "/about/software.json")
    assert page.json() == []
    assert as_json.status_code == 404
