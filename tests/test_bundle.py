"""The bundle's verification, on tampered copies of the shipped one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundle import TRUSTED_KEYS, load_bundle, parse_manifest
from edge.errors import BundleError
from edge.report.graph import load_graph


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A writable copy of the shipped bundle."""
    return Path(shutil.copytree(next((root / "models" / "bundles").glob("*/manifest.json")).parent, tmp_path / "b"))


def test_the_shipped_bundle_verifies_and_fits_the_graph(root: Path) -> None:
    bundle = load_bundle(next((root / "models" / "bundles").glob("*/manifest.json")).parent)
    assert bundle.manifest.graph_sha256 == load_graph().sha256
    assert len(bundle.findings) == 14
    assert sum(f.stat().st_size for f in bundle.path.iterdir()) <= 30 << 20


def test_every_offered_finding_clears_the_floor_with_measured_accuracy(root: Path) -> None:
    manifest = load_bundle(next((root / "models" / "bundles").glob("*/manifest.json")).parent).manifest
    offered = [spec for populations in manifest.findings.values() for spec in populations.values() if spec.offered]
    assert offered
    for spec in offered:
        assert spec.accuracy
        assert all(a.low >= manifest.floor == 0.65 and a.low <= a.auroc <= a.high for a in spec.accuracy)


def _code(path: Path, keys: Path = TRUSTED_KEYS) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path, keys)
    return caught.value.code


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda b: _flip(b / "encoder.tflite"), "bundle.hash"),
        (lambda b: _flip(b / "decoder.safetensors"), "bundle.hash"),
        (lambda b: (b / "encoder.onnx").write_bytes(b""), "bundle.hash"),
        (lambda b: (b / "golden.safetensors").unlink(), "bundle.file-missing"),
        (lambda b: (b / "manifest.json").unlink(), "bundle.missing"),
        (lambda b: (b / "manifest.sig").unlink(), "bundle.signature"),
        (lambda b: _flip(b / "manifest.sig"), "bundle.signature"),
        (lambda b: (b / "manifest.sig").write_bytes(b"short"), "bundle.signature"),
        (lambda b: _flip(b / "manifest.json"), "bundle.signature"),
        (lambda b: (b / "manifest.json").write_bytes(b" " * (2 << 20)), "bundle.too-large"),
    ],
)
def test_a_tampered_bundle_is_refused(copy: Path, spoil: Callable[[Path], object], code: str) -> None:
    spoil(copy)
    assert _code(copy) == code


def test_a_bundle_signed_by_a_stranger_is_refused(copy: Path) -> None:
    stranger = Ed25519PrivateKey.generate()
    (copy / "manifest.sig").write_bytes(stranger.sign((copy / "manifest.json").read_bytes()))
    assert _code(copy) == "bundle.signature"


def test_no_trusted_key_means_no_bundle(copy: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("# nobody\n")
    assert _code(copy, keys) == "bundle.signature"


def _broken(root: Path, change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(next((root / "models" / "bundles").glob("*/manifest.json")).read_text())
    change(document)
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps(document).encode())
    return caught.value.code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: d.update(schema=2), "bundle.schema"),
        (lambda d: d.update(surprise=1), "bundle.manifest"),
        (lambda d: d.pop("floor"), "bundle.manifest"),
        (lambda d: d.update(input_size="256"), "bundle.manifest"),
        (lambda d: d["files"].update({"../x": "0" * 64}), "bundle.manifest"),
        (lambda d: d["findings"].update(unheard={"adult": d["findings"]["mass"]["adult"]}), "bundle.manifest"),
        (lambda d: d["findings"]["hernia"]["adult"].update(offered=True, accuracy=[]), "bundle.manifest"),
        (lambda d: d["findings"]["mass"]["adult"].update(possible=0.9, present=0.5), "bundle.manifest"),
    ],
)
def test_a_wrong_manifest_is_refused(root: Path, change: Callable[[dict[str, Any]], object], code: str) -> None:
    assert _broken(root, change) == code


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"{\xff", b"[" * 100_000, b'{"schema": 1}', b"null"])
def test_bytes_that_are_no_manifest_are_refused(document: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(document)


def test_signing_makes_a_bundle_trusted_by_that_key_alone(copy: Path, tmp_path: Path) -> None:
    import base64

    key = Ed25519PrivateKey.generate()
    (copy / "manifest.sig").write_bytes(key.sign((copy / "manifest.json").read_bytes()))
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    keys = tmp_path / "keys.txt"
    keys.write_text(base64.b64encode(raw).decode() + "  # ours\n")
    assert load_bundle(copy, keys).findings
