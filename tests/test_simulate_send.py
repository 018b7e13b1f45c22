"""The objects of the simulator are valid DICOM, and its client delivers them to DCMTK's storescp unchanged."""

from __future__ import annotations

import gc
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from edge.errors import RadboxError
from edge.simulate import objects
from edge.simulate import send as client
from edge.simulate.phantom import Lesion, Phantom, PhantomOptions, make_phantom

needs_dcmtk = pytest.mark.skipif(shutil.which("storescp") is None, reason="needs the package dcmtk")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(PhantomOptions(seed=5, size=(300, 280), detail="fast", lesion=Lesion("mass", "left", "upper")))


@dataclass
class Peer:
    port: int
    folder: Path


def _peer(folder: Path, port: int, *extra: str) -> Iterator[Peer]:
    folder.mkdir()
    command = ["storescp", "-od", str(folder), "-aet", "PEER", *extra, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "storescp did not start"
                time.sleep(0.02)
        yield Peer(port, folder)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def peer(tmp_path: Path, free_port: int) -> Iterator[Peer]:
    """storescp that takes every transfer syntax it knows and keeps the bytes as they came (+B)."""
    yield from _peer(tmp_path / "received", free_port, "+xa", "+B")


@pytest.mark.parametrize("modality", ["DX", "CR"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_window_gives_the_phantom_back(phantom: Phantom, modality, photometric):
    ds = objects.phantom_dataset(phantom, modality=modality, photometric=photometric)
    stored = np.frombuffer(ds.PixelData, dtype="<u2").reshape(ds.Rows, ds.Columns).astype(float)
    # PS3.3 C.11.2.1.2.1, VOI LUT Function LINEAR
    shown = (stored - (float(ds.WindowCenter) - 0.5)) / (float(ds.WindowWidth) - 1) + 0.5
    if photometric == "MONOCHROME1":
        shown = 1 - shown
    assert np.abs(shown - phantom.pixels).max() < 1 / 3000
    assert stored.max() < 2**ds.BitsStored
    assert stored.max() - stored.min() < 0.95 * 2**ds.BitsStored  # the window matters


def test_objects_have_what_their_class_requires(phantom: Phantom):
    ds = objects.phantom_dataset(phantom)
    required = [
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "Modality",
        "PresentationIntentType",
        "ImageType",
        "ImageLaterality",
        "ImagerPixelSpacing",
        "PixelIntensityRelationship",
        "PixelIntensityRelationshipSign",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "PresentationLUTShape",
        "LossyImageCompression",
        "BurnedInAnnotation",
        "ViewCodeSequence",
        "WindowCenter",
        "WindowWidth",
        "PhotometricInterpretation",
        "SamplesPerPixel",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
    ]
    assert [name for name in required if name not in ds or ds[name].is_empty] == []
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    assert (ds.BodyPartExamined, ds.ViewPosition, ds.PatientAge) == ("CHEST", "PA", "050Y")
    assert "PHANTOM" in str(ds.PatientName)
    assert 0.5 < float(ds.ImagerPixelSpacing[0]) < 3.0  # a thorax of about 40 cm on 280 columns


def test_identity_follows_from_the_input(phantom: Phantom):
    one, again = objects.phantom_dataset(phantom), objects.phantom_dataset(phantom)
    other = objects.phantom_dataset(phantom, photometric="MONOCHROME1")
    together = [objects.phantom_dataset(phantom, modality=m, study_key="s1") for m in ("DX", "CR")]
    assert one == again
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert together[0].StudyInstanceUID == together[1].StudyInstanceUID
    assert together[0].SOPInstanceUID != together[1].SOPInstanceUID


@needs_dcmtk
@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_dcmtk_reads_the_file(phantom: Phantom, tmp_path: Path, modality):
    path = tmp_path / "phantom.dcm"
    objects.save_file(objects.phantom_dataset(phantom, modality=modality), path)
    assert subprocess.run(["dcmftest", str(path)], check=False, capture_output=True).returncode == 0
    dump = subprocess.run(["dcmdump", "--load-short", str(path)], check=True, capture_output=True, text=True)
    assert "W: " not in dump.stderr
    assert "E: " not in dump.stderr
    assert f"CS [{modality}]" in dump.stdout
    picture = tmp_path / "shown.pgm"
    subprocess.run(["dcmj2pnm", "+op", "+Wi", "1", str(path), str(picture)], check=True, capture_output=True)
    shown = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
    assert shown is not None
    assert np.abs(shown / 255 - phantom.pixels).max() < 0.01


def _picture(path: Path, kind: str) -> Path:
    rng = np.random.default_rng(3)
    grey = cv2.GaussianBlur(rng.integers(0, 255, (60, 80), dtype=np.uint8), (0, 0), 3)
    colour = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    content, options = {
        "grey.jpg": (grey, []),
        "colour.jpg": (colour, []),
        "progressive.jpg": (grey, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        "grey.png": (grey, []),
        "deep.png": (grey.astype(np.uint16) * 257, []),
        "colour.png": (colour, []),
    }[kind]
    ok, encoded = cv2.imencode(path.suffix, content, options)
    assert ok
    path.write_bytes(encoded.tobytes())
    return path


@pytest.mark.parametrize(
    ("kind", "syntax", "photometric"),
    [
        ("grey.jpg", JPEGBaseline8Bit, "MONOCHROME2"),
        ("colour.jpg", JPEGBaseline8Bit, "YBR_FULL_422"),
        ("progressive.jpg", ExplicitVRLittleEndian, "MONOCHROME2"),
        ("grey.png", ExplicitVRLittleEndian, "MONOCHROME2"),
        ("deep.png", ExplicitVRLittleEndian, "MONOCHROME2"),
        ("colour.png", ExplicitVRLittleEndian, "RGB"),
    ],
)
def test_a_picture_becomes_secondary_capture(tmp_path: Path, kind, syntax, photometric):
    path = _picture(tmp_path / f"DOE^JANE-{kind}", kind)
    ds = objects.picture_dataset(path)
    assert ds.SOPClassUID == SecondaryCaptureImageStorage
    assert (ds.file_meta.TransferSyntaxUID, ds.PhotometricInterpretation) == (syntax, photometric)
    assert b"DOE" not in objects.encode_file(ds)
    if syntax == JPEGBaseline8Bit:
        assert path.read_bytes().rstrip(b"\0") in ds.PixelData
    out = tmp_path / "x.dcm"
    objects.save_file(ds, out)
    seen = pydicom.dcmread(out).pixel_array.astype(float)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read is not None
    expected = read.astype(float)
    if seen.ndim == 3:
        expected = expected[..., ::-1]
    assert np.abs(seen - expected).mean() < 3 * (257 if kind == "deep.png" else 1)


def test_a_broken_picture_is_named(tmp_path: Path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    with pytest.raises(RadboxError) as caught:
        objects.picture_dataset(path)
    assert caught.value.code == "simulate.picture-unreadable"


@needs_dcmtk
def test_a_folder_arrives_unchanged(phantom: Phantom, peer: Peer, tmp_path: Path):
    folder = tmp_path / "out"
    (folder / "deeper").mkdir(parents=True)
    first = objects.phantom_dataset(phantom)
    objects.save_file(first, folder / "no-extension")
    objects.save_file(objects.phantom_dataset(phantom, modality="CR"), folder / "deeper" / "b.dcm")
    _picture(folder / "grey.jpg", "grey.jpg")
    _picture(folder / "deep.png", "deep.png")
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    files = client.collect(folder)
    assert len(files) == 4
    steps: list[tuple[int, int]] = []
    results = client.send(
        files, "127.0.0.1", peer.port, "PEER", timeout_s=10, progress=lambda d, t: steps.append((d, t))
    )
    assert [result.status for result in results] == [0, 0, 0, 0]
    assert all(result.accepted for result in results)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    received = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, peer.folder.iterdir())}
    assert set(received) == {result.sop_instance_uid for result in results}
    assert received[first.SOPInstanceUID].PixelData == first.PixelData
    jpeg = received[results[files.index(folder / "grey.jpg")].sop_instance_uid]
    assert jpeg.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert (folder / "grey.jpg").read_bytes().rstrip(b"\0") in jpeg.PixelData


@needs_dcmtk
def test_a_data_set_in_memory_arrives(phantom: Phantom, peer: Peer):
    ds = objects.phantom_dataset(phantom, photometric="MONOCHROME1")
    (result,) = client.send([ds], "127.0.0.1", peer.port, "PEER", timeout_s=10)
    assert result == client.SendResult(ds.SOPInstanceUID, 0, "stored")
    (path,) = peer.folder.iterdir()
    assert pydicom.dcmread(path).PixelData == ds.PixelData


@needs_dcmtk
def test_more_kinds_than_one_association_holds(peer: Peer, monkeypatch):
    monkeypatch.setattr(client, "CONTEXTS_PER_ASSOCIATION", 2)
    small = make_phantom(PhantomOptions(size=64, detail="fast"))
    items = [objects.phantom_dataset(small, modality=m) for m in ("DX", "CR")]
    for sop_class in (CTImageStorage, MRImageStorage):
        ds = objects.phantom_dataset(small, patient_id=sop_class[-1])
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        items.append(ds)
    results = client.send(items, "127.0.0.1", peer.port, "PEER", timeout_s=10)
    assert [result.status for result in results] == [0] * 4
    assert [result.sop_instance_uid for result in results] == [ds.SOPInstanceUID for ds in items]
    assert len(list(peer.folder.iterdir())) == 4


@needs_dcmtk
def test_an_unknown_class_is_refused_alone(phantom: Phantom, peer: Peer):
    good, strange = objects.phantom_dataset(phantom), objects.phantom_dataset(phantom, modality="CR")
    strange.SOPClassUID = strange.file_meta.MediaStorageSOPClassUID = generate_uid()
    results = client.send([strange, good], "127.0.0.1", peer.port, "PEER", timeout_s=10)
    assert [result.status for result in results] == [0x0122, 0]
    assert not results[0].accepted


# pynetdicom 3.0.4 does not close a socket whose connection was refused: `_shutdown_socket` raises before it closes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_listens(phantom: Phantom, free_port: int):
    with pytest.raises(RadboxError) as caught:
        client.send([objects.phantom_dataset(phantom)], "127.0.0.1", free_port, "PEER", timeout_s=3)
    assert caught.value.code == "send.no-connection"
    gc.collect()


@needs_dcmtk
def test_a_rejection_is_told_from_an_abort(phantom: Phantom, tmp_path: Path, free_port: int):
    for peer in _peer(tmp_path / "none", free_port, "--refuse"):
        with pytest.raises(RadboxError) as caught:
            client.send([objects.phantom_dataset(phantom)], "127.0.0.1", peer.port, "PEER", timeout_s=30)
        assert caught.value.code == "send.rejected"


@needs_dcmtk
def test_an_abort_in_the_middle(phantom: Phantom, tmp_path: Path, free_port: int):
    for peer in _peer(tmp_path / "none", free_port, "--abort-after"):
        with pytest.raises(RadboxError) as caught:
            client.send([objects.phantom_dataset(phantom)], "127.0.0.1", peer.port, "PEER", timeout_s=5)
        assert caught.value.code == "send.failed"


def test_nothing_to_send(tmp_path: Path):
    text = tmp_path / "readme.txt"
    text.write_text("words", encoding="utf-8")
    for path in (tmp_path, text, tmp_path / "absent"):
        with pytest.raises(RadboxError) as caught:
            client.collect(path)
        assert caught.value.code == "send.nothing-to-send"


@needs_dcmtk
def test_real_files_go_as_they_are(shared_data: Path, peer: Peer):
    files = [shared_data / "dicom" / name for name in ("RG1_J2KI.dcm", "RG1_JLSN.dcm")]
    results = client.send(files, "127.0.0.1", peer.port, "PEER", timeout_s=20)
    assert [result.status for result in results] == [0, 0]
    received = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, peer.folder.iterdir())}
    for file, result in zip(files, results, strict=True):
        sent = pydicom.dcmread(file)
        assert received[result.sop_instance_uid].PixelData == sent.PixelData
        assert received[result.sop_instance_uid].file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
