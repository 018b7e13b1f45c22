"""A model bundle: the contract between training and device. Verified as bytes before anything in it is used.

A bundle is one folder: manifest.json, manifest.sig (Ed25519 over the manifest's bytes, by a key this firmware
trusts) and the files that the manifest names with their sha256. Shapes, thresholds and tolerances belong to the
bundle; threads, delegates and limits to the board.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.closed import ClosedError, build
from edge.errors import BundleError

MANIFEST_SCHEMA = 1
TRUSTED_KEYS = Path(__file__).with_name("trusted_keys.txt")
LARGEST_MANIFEST_BYTES = 1 << 20
LARGEST_FILE_BYTES = 64 << 20

Population = Literal["adult", "child"]


@dataclass(frozen=True)
class Accuracy:
    """Measured on the patient-disjoint test part of one source; the interval is 95 %, resampled by patient."""

    source: str
    n: int
    positives: int
    auroc: float
    low: float
    high: float


@dataclass(frozen=True)
class FindingSpec:
    """One finding for one population.

    slope, intercept: Platt scaling, probability = sigmoid(slope * logit + intercept) (Platt 1999).
    possible, present: probability from which it may be stated as possible and as present.
    offered: the lower bound of the AUROC cleared `Manifest.floor`; otherwise never stated.
    """

    slope: float
    intercept: float
    possible: float
    present: float
    offered: bool
    accuracy: tuple[Accuracy, ...]


@dataclass(frozen=True)
class DecoderSpec:
    """Shape of the decoder; see `edge.reading.decoder.DecoderConfig`."""

    vocabulary: tuple[str, ...]
    width: int
    layers: int
    heads: int
    ffn: int
    positions: int
    bias_sigma: tuple[float, ...]
    bias_strength: float


@dataclass(frozen=True)
class GateSpec:
    """chest: logit from which an image counts as a frontal chest X-ray; child: logit of the population head."""

    chest: float
    child: float


@dataclass(frozen=True)
class Golden:
    """Largest normalised error, |got - expected| / std(expected), mean over the output, for each encoder output."""

    cases: int
    tolerance: dict[str, float]


@dataclass(frozen=True)
class Manifest:
    """manifest.json as it stands."""

    schema: int
    id: str
    version: str
    files: dict[str, str]  # name -> sha256
    graph_sha256: str
    input_size: int
    grid: int
    channels: int
    findings: dict[str, dict[str, FindingSpec]]  # code -> population -> spec, in vocabulary order
    decoder: DecoderSpec
    gate: GateSpec
    floor: float
    golden: Golden
    licences: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder, its manifest, and the manifest's sha256 (the model's identity)."""

    path: Path
    manifest: Manifest
    sha256: str

    @property
    def findings(self) -> tuple[str, ...]:
        """Finding codes in the order of the encoder's `findings` output."""
        return tuple(self.manifest.findings)

    def file(self, name: str) -> Path:
        """Path of a file that the manifest names."""
        if name not in self.manifest.files:
            raise BundleError(f"The model bundle has no file {name!r}.", code="bundle.file-missing")
        return self.path / name

    def spec(self, finding: str, population: Population) -> FindingSpec:
        """Calibration and thresholds of one finding for one population."""
        return self.manifest.findings[finding][population]


def load_bundle(path: Path, trusted_keys: Path = TRUSTED_KEYS, *, trusted_manifest_sha256: str | None = None) -> Bundle:
    """Verify and open the bundle in folder `path`.

    trusted_manifest_sha256: the manifest that signed update metadata vouches for; manifest.sig is then not looked at.

    Raises BundleError: bundle.missing, bundle.signature, bundle.manifest, bundle.schema, bundle.file-missing,
    bundle.hash.
    """
    manifest_path = path / "manifest.json"
    if not manifest_path.is_file():
        raise BundleError(
            f"There is no model bundle in {path.name!r}: manifest.json is missing.", code="bundle.missing"
        )
    document = _read(manifest_path, LARGEST_MANIFEST_BYTES)
    sha256 = hashlib.sha256(document).hexdigest()
    if trusted_manifest_sha256 is None:
        _verify_signed(path, document, trusted_keys)
    elif sha256 != trusted_manifest_sha256:
        raise BundleError("The model bundle's manifest is not the one that was signed.", code="bundle.signature")
    manifest = parse_manifest(document)
    for name, expected in manifest.files.items():
        _verify_file(path / name, expected)
    return Bundle(path, manifest, sha256)


def _verify_signed(path: Path, document: bytes, trusted_keys: Path) -> None:
    signature = path / "manifest.sig"
    if not signature.is_file():
        raise BundleError("The model bundle is not signed: manifest.sig is missing.", code="bundle.signature")
    verify_signature(document, signature.read_bytes(), trusted_keys.read_text())


def verify_signature(document: bytes, signature: bytes, trusted_keys: str) -> None:
    """Pass if any trusted key (base64, one a line, # comments) signed `document` (Ed25519, RFC 8032)."""
    for line in trusted_keys.splitlines():
        encoded = line.split("#")[0].strip()
        if not encoded:
            continue
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded))
        try:
            key.verify(signature, document)
        except InvalidSignature:
            continue
        return
    raise BundleError("The model bundle's signature does not match any key this box trusts.", code="bundle.signature")


def parse_manifest(document: bytes) -> Manifest:
    """Bytes of manifest.json -> Manifest, closed and typed; checks that belong together are checked here."""
    try:
        raw = json.loads(document)
        if isinstance(raw, dict) and raw.get("schema") != MANIFEST_SCHEMA:
            raise BundleError(
                f"The model bundle has manifest schema {raw.get('schema')!r:.20}, expected {MANIFEST_SCHEMA}.",
                code="bundle.schema",
            )
        manifest = build(Manifest, raw, "manifest")
    except (ValueError, RecursionError, ClosedError) as error:
        raise BundleError(f"The model bundle's manifest is not valid: {error}", code="bundle.manifest") from error
    _check_names(manifest)
    _check_findings(manifest)
    return manifest


def _check_names(manifest: Manifest) -> None:
    for name in manifest.files:
        if Path(name).name != name or name.startswith("."):
            raise BundleError("The model bundle's manifest names a file outside its folder.", code="bundle.manifest")


def _check_findings(manifest: Manifest) -> None:
    for code, populations in manifest.findings.items():
        if set(populations) != {"adult", "child"}:
            raise BundleError(f"Finding {code!r} needs adult and child, and no other.", code="bundle.manifest")
        if code not in manifest.decoder.vocabulary:
            raise BundleError(f"Finding {code!r} is not in the decoder's vocabulary.", code="bundle.manifest")
        for spec in populations.values():
            lowest = min((a.low for a in spec.accuracy), default=0.0)
            if spec.offered and lowest < manifest.floor:
                raise BundleError(
                    f"Finding {code!r} is offered but its measured accuracy is below the floor.", code="bundle.manifest"
                )
            if not 0.0 < spec.possible <= spec.present <= 1.0:
                raise BundleError(f"Finding {code!r} has thresholds out of order.", code="bundle.manifest")


def _verify_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(f"The model bundle has no file {path.name!r}.", code="bundle.file-missing")
    if hashlib.sha256(_read(path, LARGEST_FILE_BYTES)).hexdigest() != expected:
        raise BundleError(f"The model bundle's file {path.name!r} is damaged: its sha256 differs.", code="bundle.hash")


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise BundleError(
            f"The model bundle's file {path.name!r} is over {limit_bytes} bytes.", code="bundle.too-large"
        )
    return content
