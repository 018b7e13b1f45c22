"""TFLite delegates of accelerators, each a backend of its own name; the board lists those it has, best first.

A delegate reads only if it earned its place in a trial in a child process (`delegate_trial`): it takes nodes of this
model, its numbers pass the golden case, and it is faster than the CPU. What fails any of it counts as absent, and the
board's next backend reads. docs/tflite.md says what each board needs; none of this was run on such hardware yet.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import tflite
from edge.reading.backends.delegate_library import Library
from edge.reading.backends.delegate_nodes import Taken, taken
from edge.reading.backends.delegate_trial import TRIAL_TIMEOUT_S, try_out
from edge.reading.backends.delegate_verdict import Key, Verdict, keep, kept
from edge.reading.backends.setup import Setup
from edge.reading.backends.tflite import TfliteEncoder


@dataclass(frozen=True)
class Delegate:
    """spoken: the accelerator's name for people. libraries: where its maker's packages put the delegate, "" names one
    to be looked for in FOLDERS. options: what it does not run without. model: the bundle's file that it runs.
    source: the maker's document.
    """

    spoken: str
    libraries: tuple[str, ...]
    source: str
    options: tuple[str, ...] = ()
    model: str = tflite.MODEL


DELEGATES: Final[Mapping[str, Delegate]] = {
    "edgetpu": Delegate(
        "Coral Edge TPU",
        ("libedgetpu.so.1",),
        "coral.ai, Run inference on the Edge TPU with Python",
        model="encoder.edgetpu.tflite",
    ),
    "vx": Delegate(
        "VeriSilicon NPU (i.MX 8M Plus)",
        ("libvx_delegate.so",),
        "NXP, i.MX Machine Learning User's Guide (IMXMLUG), VX delegate; VeriSilicon/tflite-vx-delegate, README",
    ),
    "ethosu": Delegate(
        "Arm Ethos-U65 (i.MX 93)",
        ("libethosu_delegate.so",),
        "NXP, i.MX Machine Learning User's Guide (IMXMLUG), Ethos-U delegate; AN13854",
        model="encoder.vela.tflite",
    ),
    "teflon": Delegate(
        "NPU with a driver of Mesa",
        ("/usr/lib/teflon/libteflon.so", "libteflon.so"),
        "Mesa, docs/teflon.rst; Debian package mesa-teflon-delegate",
    ),
    "qnn": Delegate(
        "Qualcomm Hexagon",
        ("libQnnTFLiteDelegate.so",),
        "Qualcomm AI Engine Direct SDK, TFLite Delegate, External Delegate Options",
        options=("backend_type=htp",),
    ),
    "armnn": Delegate(
        "Arm NN (Mali GPU or CPU)",
        ("libarmnnDelegate.so",),
        "Arm NN, armnnDelegate::DelegateOptions and the delegate's quick start guide",
        options=("backends=GpuAcc,CpuAcc",),
    ),
}
"""Name in the board file -> delegate. `accelerator.library` and `accelerator.options` of the board come first."""

FOLDERS = (f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib", "/usr/lib64", "/usr/local/lib")


def load(bundle: Bundle, setup: Setup) -> TfliteEncoder:
    """Open the delegate `setup.backend` once it has earned its place. Raises BackendError: backend.absent,
    backend.model, backend.load, and the codes delegate.* of docs/tflite.md.
    """
    _earned(bundle, setup)
    return open_delegate(bundle, setup)[0]


def open_delegate(bundle: Bundle, setup: Setup) -> tuple[TfliteEncoder, Taken]:
    """Without any trial: the encoder, and what the delegate alone took of its graph. Raises BackendError."""
    path = model_of(bundle, setup.backend)
    runtime = tflite.find_runtime()
    tflite.check_file(runtime, path)
    library = Library(find_library(setup))
    delegate = library.create(runtime, options_of(setup))
    interpreter = library.apply(runtime, path, setup.threads, delegate)
    nodes = taken(interpreter)
    if not nodes.nodes:
        raise BackendError(f"The delegate takes none of the model's {nodes.of} nodes.", code="delegate.takes-nothing")
    library.set_up(interpreter)
    return TfliteEncoder(interpreter, setup.backend), nodes


def judge(bundle: Bundle, setup: Setup, timeout_s: float = TRIAL_TIMEOUT_S) -> Verdict:
    """The kept verdict on delegate `setup.backend`, or that of a trial now. Raises BackendError for faults, which may
    pass and are not kept.
    """
    key = _key(bundle, setup)
    verdict = kept(bundle, setup, key)
    if verdict is None:
        verdict = try_out(bundle, setup, timeout_s)
        keep(bundle, setup, key, verdict)
    return verdict


def worth(bundle: Bundle, setup: Setup) -> str:
    """For people: what backend `setup.backend`, which works, is worth on this box; "" for what is no TFLite.

    Raises BackendError.
    """
    if setup.backend in DELEGATES:
        return _earned(bundle, setup).words
    return f"XNNPACK {try_out(bundle, setup).words}" if setup.backend == "tflite" else ""


def _earned(bundle: Bundle, setup: Setup) -> Verdict:
    """A good verdict. Raises BackendError for any other."""
    verdict = judge(bundle, setup)
    if verdict.code:
        raise BackendError(verdict.message, code=verdict.code)
    return verdict


def model_of(bundle: Bundle, name: str) -> Path:
    """The file that delegate `name` runs. Raises BackendError (delegate.no-model)."""
    delegate = DELEGATES[name]
    if delegate.model not in bundle.manifest.files:
        message = f"The model has no file for {delegate.spoken}: expected {delegate.model} in its bundle, got none."
        raise BackendError(message, code="delegate.no-model")
    return bundle.file(delegate.model)


def find_library(setup: Setup) -> Path:
    """The board's own, or the first that is there. Raises BackendError (delegate.library-missing)."""
    delegate = DELEGATES[setup.backend]
    names = (setup.library,) if setup.library else delegate.libraries
    for path in (Path(folder, name) for name in names for folder in FOLDERS):  # an absolute name stays what it is
        if path.is_file():
            return path
    message = f"The driver of {delegate.spoken} is not installed: expected {' or '.join(names)}, got no such file."
    raise BackendError(message, code="delegate.library-missing")


def options_of(setup: Setup) -> dict[str, str]:
    """The delegate's own options, replaced and added to by the board's.

    A board with several accelerators writes "vx:key=value" for the options of one.
    """
    options = {}
    for option in (*DELEGATES[setup.backend].options, *setup.options):
        key, _, value = option.partition("=")
        name, colon, own_key = key.partition(":")
        if not colon or name.strip() == setup.backend:
            options[(own_key if colon else key).strip()] = value.strip()
    return options


def _key(bundle: Bundle, setup: Setup) -> Key:
    """Everything that a verdict depends on. Raises BackendError."""
    model_of(bundle, setup.backend)
    library = find_library(setup)
    try:
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
    except OSError as error:
        raise BackendError("The delegate's library cannot be read.", code="delegate.not-loadable") from error
    return Key(
        library_sha256=digest,
        model_sha256=bundle.manifest.files[DELEGATES[setup.backend].model],
        bundle_sha256=bundle.sha256,
        runtime=tflite.find_runtime().spoken,
        options=tuple(f"{key}={value}" for key, value in sorted(options_of(setup).items())),
        threads=setup.threads,
        kernel=platform.release(),
    )
