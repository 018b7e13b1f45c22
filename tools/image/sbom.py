"""The image's bill of materials (CycloneDX 1.6): what Debian's dpkg says is in it, and the package's own list."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SPEC_VERSION: Final = "1.6"
NEED: Final = "need:"  # bom-ref of what the package only needs, as tools/deb/sbom.py writes it
_FORMAT = re.compile(r"^Format(-Specification)?:\s*\S*(copyright-format|dep5|DEP5)", re.IGNORECASE)
_LICENCE = re.compile(r"^License:[ \t]*(\S[^\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class DebPackage:
    """One installed Debian package. licences: short names of its copyright file, empty if that is prose only."""

    name: str
    version: str
    architecture: str
    source: str
    licences: tuple[str, ...]


def installed(rootfs: Path) -> list[DebPackage]:
    """The installed packages of a system below `rootfs`, sorted by name."""
    found = []
    for fields in _paragraphs((rootfs / "var/lib/dpkg/status").read_text(encoding="utf-8")):
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        name = fields["Package"]
        licences = licences_of(rootfs / "usr/share/doc" / name / "copyright")
        source = fields.get("Source", name).split()[0]
        found.append(DebPackage(name, fields["Version"], fields["Architecture"], source, licences))
    return sorted(found, key=lambda one: one.name)


def licences_of(copyright_file: Path) -> tuple[str, ...]:
    """Short licence names of a machine-readable copyright file (DEP 5), sorted; () if it is prose or missing."""
    try:
        text = copyright_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    if not any(_FORMAT.match(line) for line in text.splitlines()[:5]):
        return ()
    return tuple(sorted({match.strip() for match in _LICENCE.findall(text)}))


def merge(package: Mapping[str, Any] | None, debian: Sequence[DebPackage], version: str) -> dict[str, Any]:
    """One CycloneDX document: radbox and all it carries (`package`, as `make_deb` wrote it), then Debian's packages.

    Components of `package` are kept as they are, but what it only needs of Debian ("need:...", without a version) gives
    way to what is installed.
    """
    known = package or {"metadata": {}, "components": [], "dependencies": []}
    own = dict(known["metadata"].get("component", {}))
    installed_refs = {one.name: _purl(one) for one in debian}
    replaced = {
        one["bom-ref"]: installed_refs[one["name"]]
        for one in known["components"]
        if one["bom-ref"].startswith(NEED) and one["name"] in installed_refs
    }
    components = [own] if own else []
    components += [dict(one) for one in known["components"] if one["bom-ref"] not in replaced]
    components += [_component(one) for one in debian if one.name != own.get("name")]
    links = [
        {**one, "dependsOn": sorted({replaced.get(ref, ref) for ref in one.get("dependsOn", ())})}
        for one in known.get("dependencies", ())
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": _serial(components),
        "version": 1,
        "metadata": {"component": {"type": "operating-system", "name": "radbox-image", "version": version}},
        "components": components,
        "dependencies": links,
    }


def _purl(package: DebPackage) -> str:
    """purl specification, type deb; "+" must not stand in it bare."""
    return f"pkg:deb/debian/{package.name}@{package.version.replace('+', '%2B')}?arch={package.architecture}"


def _component(package: DebPackage) -> dict[str, Any]:
    purl = _purl(package)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "properties": [{"name": "debian:source", "value": package.source}],
    }
    if package.licences:
        component["licenses"] = [{"license": {"name": name}} for name in package.licences]
    else:
        component["properties"].append(
            {"name": "radbox:licence-text", "value": f"/usr/share/doc/{package.name}/copyright"}
        )
    return component


def _serial(components: Sequence[Mapping[str, Any]]) -> str:
    """The same for the same content, so that two builds of one state can be compared."""
    return uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components, sort_keys=True)).urn


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Fields of each paragraph of a control file; continuation lines are left out."""
    for paragraph in text.split("\n\n"):
        fields = {}
        for line in paragraph.splitlines():
            key, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                fields[key] = value.strip()
        if fields:
            yield fields
