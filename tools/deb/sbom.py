"""The software bill of materials (CycloneDX 1.6, JSON) of the package, and that of a whole system image.

    python -m tools.deb.sbom --image ROOT [--out FILE]     of the system that is installed under ROOT

What is listed is what is there: each Python distribution as it lies in the venv with the hash of its wheel, the
libraries that wheels bring along, the kernels, the model with the hash of every file, and the Debian packages.
"""

from __future__ import annotations

import argparse
import datetime
import email
import hashlib
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tools.deb.licences import of_bundled, of_debian, of_distribution

Component = dict[str, Any]
INSTALLED: Final = Path("opt/radbox/share/sbom.cdx.json")
DISTRIBUTION: Final = "debian-12"


def package_sbom(package: Path, wheels: Path, depends: Sequence[str], version: str, epoch_s: int) -> dict[str, Any]:
    """Of the package tree; `wheels`: where its wheels were fetched to; `depends`: as in the control file."""
    (site,) = (package / "opt/radbox/lib").glob("python*/site-packages")
    python = list(_distributions(site, wheels))
    own = next(one for one in python if one["name"] == "radbox")
    components = [one for one in python if one is not own]
    components += _kernels(site, version)
    components.append(_model(package / "opt/radbox/models/chest"))
    components += [_debian_need(need) for need in depends]
    return _document({**own, "type": "firmware", "version": version}, components, epoch_s)


def image_sbom(root: Path, version: str, epoch_s: int) -> dict[str, Any]:
    """Of a system: the package's own list, and every Debian package in its installed version."""
    inside = json.loads((root / INSTALLED).read_text(encoding="utf-8"))
    components = [one for one in inside["components"] if not one["bom-ref"].startswith("need:")]
    components.append(inside["metadata"]["component"])
    components += _debian_packages(root)
    subject = {"type": "operating-system", "name": "radbox-image", "version": version, "bom-ref": "radbox-image"}
    return _document(subject, components, epoch_s)


def _document(subject: Component, components: Sequence[Component], epoch_s: int) -> dict[str, Any]:
    made = datetime.datetime.fromtimestamp(epoch_s, datetime.timezone.utc)
    ordered = sorted(components, key=lambda one: str(one["bom-ref"]))
    names = "\n".join(f"{one['bom-ref']} {one.get('hashes')}" for one in ordered)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'{subject} {names}')}",
        "version": 1,
        "metadata": {"timestamp": made.isoformat().replace("+00:00", "Z"), "component": subject},
        "components": ordered,
        "dependencies": [{"ref": subject["bom-ref"], "dependsOn": [one["bom-ref"] for one in ordered]}],
    }


def _distributions(site: Path, wheels: Path) -> Iterator[Component]:
    for folder in sorted(site.glob("*.dist-info")):
        metadata = email.message_from_string((folder / "METADATA").read_text(encoding="utf-8"))
        name, version = re.sub(r"[-_.]+", "-", metadata["Name"]).lower(), metadata["Version"]
        reference = f"pkg:pypi/{name}@{version}"
        component: Component = {
            "type": "library",
            "bom-ref": reference,
            "name": name,
            "version": version,
            "description": metadata["Summary"] or "",
            "licenses": [{"expression": of_distribution(name, metadata)}],
            "purl": reference,
        }
        prefix = folder.name.removesuffix(".dist-info") + "-"
        found = [wheel for wheel in wheels.glob("*.whl") if wheel.name.startswith(prefix)]
        if found:
            component["hashes"] = _sha256(found[0])
        inner = list(_bundled(site, name))
        if inner:
            component["components"] = inner
        yield component


def _bundled(site: Path, name: str) -> Iterator[Component]:
    """Shared libraries that a wheel brings along (auditwheel's folder beside the modules)."""
    for path in sorted((site / f"{name.replace('-', '_')}.libs").glob("*.so*")):
        yield {
            "type": "library",
            "bom-ref": f"file:{name}/{path.name}",
            "name": path.name,
            "licenses": [{"expression": of_bundled(path.name)}],
            "hashes": _sha256(path),
        }


def _kernels(site: Path, version: str) -> list[Component]:
    own = {
        "kernels": "The decoder's arithmetic, written by this project",
        "tflite": "The TFLite delegate of the kernels, written by this project",
    }
    return [
        {
            "type": "library",
            "bom-ref": f"radbox-{name}",
            "name": f"libradbox_{name}.so",
            "version": version,
            "description": words,
            "licenses": [{"expression": "Apache-2.0"}],
            "hashes": _sha256(site / "edge" / f"libradbox_{name}.so"),
        }
        for name, words in own.items()
    ]


def _model(bundle: Path) -> Component:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    reference = f"model:{manifest['id']}@{manifest['version']}"
    files = [path for path in sorted(bundle.iterdir()) if path.is_file() and path.name != "manifest.json"]
    return {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": manifest["id"],
        "version": manifest["version"],
        "description": "Model bundle: encoder and decoder for chest X-rays; the hash is that of its signed manifest",
        "licenses": [{"license": {"name": words}} for words in manifest["licences"]],
        "hashes": _sha256(bundle / "manifest.json"),
        "components": [
            {"type": "file", "bom-ref": f"{reference}/{path.name}", "name": path.name, "hashes": _sha256(path)}
            for path in files
        ],
    }


def _debian_need(need: str) -> Component:
    """A package that Debian brings: its version is known only on the system it is installed on."""
    name = need.split("|")[0].split("(")[0].strip()
    return {
        "type": "library",
        "bom-ref": f"need:{need}",
        "name": name,
        "description": f"of Debian, as installed: {need}",
        "purl": f"pkg:deb/debian/{name}?distro={DISTRIBUTION}",
        "scope": "required",
    }


def _debian_packages(root: Path) -> Iterator[Component]:
    form = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
    command = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", f"--showformat={form}"]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        name, version, architecture, status = line.split("\t")
        if status != "installed" or name == "radbox":
            continue
        reference = f"pkg:deb/debian/{name}@{version}?arch={architecture}&distro={DISTRIBUTION}"
        component: Component = {
            "type": "library",
            "bom-ref": reference,
            "name": name,
            "version": version,
            "purl": reference.replace("+", "%2B"),
        }
        words = of_debian(root / "usr/share/doc" / name / "copyright")
        if words:
            component["licenses"] = [{"license": {"name": one}} for one in words]
        yield component


def _sha256(path: Path) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]


def copyright_text(sbom: Path) -> str:
    """debian/copyright of the package, from its list: who made what, and under which licence."""
    document = json.loads(sbom.read_text(encoding="utf-8"))
    lines = [
        "radbox itself, its kernels and its model's weights: Copyright 2026 The radbox project, Apache-2.0",
        "(/usr/share/common-licenses/Apache-2.0).",
        "",
        "The package also holds the following; their licence texts lie with them below /opt/radbox/lib.",
        "",
    ]
    for one in document["components"]:
        for component in (one, *one.get("components", ())):
            words = [choice.get("expression") or choice["license"]["name"] for choice in component.get("licenses", ())]
            if words:
                name = " ".join(filter(None, (component["name"], component.get("version"))))
                lines.append(f"{name}: {'; '.join(words)}")
    return "\n".join([*lines, ""])


def encode(document: dict[str, Any]) -> bytes:
    """As it is written."""
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """The list of an image."""
    from tools.deb.run import own_version, source_date

    parser = argparse.ArgumentParser("sbom", description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, metavar="ROOT", help="folder with the installed system")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    parsed = parser.parse_args(arguments)
    content = encode(image_sbom(parsed.image, own_version(), source_date()))
    if parsed.out:
        parsed.out.write_bytes(content)
    else:
        sys.stdout.buffer.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
