"""The decoder's operators on an NVIDIA GPU, with those of the CPU behind them: the board's `worker.kernels = "cuda"`.

The GPU is opened once in a process, after a child opened it and proved it right (a driver that aborts must not take the
reader with it). Where it cannot be opened, computes wrongly or fails at work, the CPU goes on, and `fault` says why.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.backends.cuda_decoder import CudaSession
from edge.reading.backends.cuda_device import CudaDevice, Kernels, open_device
from edge.reading.backends.cuda_image import image_folder, load_images
from edge.reading.backends.cuda_proof import ERRORS, WRONG, prove
from edge.reading.backends.cuda_weights import Storage, storage_for
from edge.reading.ops.arrays import F32, NOT_FINITE, Weights
from edge.reading.ops.automaton import Automaton, Said
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.native_session import NativeSession
from edge.reading.ops.quantised import QuantisedWeights
from edge.reading.ops.shape import DecoderShape

CRASHED: Final = "cuda.crashed"
PROBE_TIMEOUT_S: Final = 60.0

Result = TypeVar("Result")
_log = logging.getLogger("worker")


class CudaKernels:
    """Decoders on an open GPU. f32 weights are stored as float16, int8 ones as they are, int4 ones as float16."""

    name = "cuda"

    def __init__(self, device: CudaDevice, kernels: Kernels, image: str = "") -> None:
        self.device, self._kernels = device, kernels
        self.image = image

    def __str__(self) -> str:
        facts = self.device.facts
        capability = f"compute capability {facts.capability[0]}.{facts.capability[1]}"
        release = f"CUDA {facts.driver_version // 1000}.{facts.driver_version % 1000 // 10}"
        return f"{facts.name} ({capability}, driver of {release}) through {self.device.driver_name}, {self.image}"

    def decoder(self, shape: DecoderShape, weights: Weights) -> CudaSession:
        """A session over checked weights."""
        return CudaSession(self.device, self._kernels, shape, weights)

    def quantised_decoder(self, shape: DecoderShape, weights: QuantisedWeights) -> CudaSession:
        """A session over int8 and int4 weights; keys and values are int8 where all weights are."""
        storage = storage_for(weights)
        return CudaSession(self.device, self._kernels, shape, weights, matrix=storage, keys=storage)


@dataclass(frozen=True)
class _Floats:
    shape: DecoderShape
    weights: Weights
    storage: Storage = "f16"

    def on_gpu(self, kernels: CudaKernels) -> CudaSession:
        return kernels.decoder(self.shape, self.weights)

    def on_cpu(self, kernels: NativeKernels) -> NativeSession:
        return kernels.decoder(self.shape, self.weights)


@dataclass(frozen=True)
class _Quantised:
    shape: DecoderShape
    weights: QuantisedWeights
    threads: int

    @property
    def storage(self) -> Storage:
        return storage_for(self.weights)

    def on_gpu(self, kernels: CudaKernels) -> CudaSession:
        return kernels.quantised_decoder(self.shape, self.weights)

    def on_cpu(self, kernels: NativeKernels) -> NativeSession:
        return kernels.quantised_decoder(self.shape, self.weights, threads=self.threads)


class GuardedKernels:
    """edge.reading.ops.Kernels: the GPU's while it works, else the CPU's. What is done once per image stays there."""

    def __init__(self, cpu: NativeKernels, gpu: CudaKernels | None, refusal: BackendError | None = None) -> None:
        """gpu: None for the reason `refusal`."""
        self._cpu, self._gpu, self._refusal = cpu, gpu, refusal

    @property
    def name(self) -> str:
        """Of the set at work."""
        return self._gpu.name if self._gpu else self._cpu.name

    @property
    def fault(self) -> str:
        """Why the GPU does not compute, in words; "" while it does."""
        return self._refusal.message if self._refusal else ""

    @property
    def fault_code(self) -> str:
        """The stable code of `fault`."""
        return self._refusal.code if self._refusal else ""

    @property
    def error_limit(self) -> float:
        """Of logits of f32 weights, relative to the greatest of them."""
        return ERRORS["f16"] if self._gpu else 1e-5

    def described(self) -> str:
        """GPU, driver, package and image; of the CPU its set."""
        return str(self._gpu) if self._gpu else f"{self._cpu.name} operators on the CPU"

    def usable(self) -> bool:
        """Whether a GPU is at work that this thread may use."""
        with contextlib.suppress(BackendError):
            if self._gpu:
                self._gpu.device.check()
                return True
        return False

    def anatomical_bias_f32(self, masks: F32, sigma: tuple[float, ...], strength: float) -> F32:
        """reference.anatomical_bias_f32"""
        return self._cpu.anatomical_bias_f32(masks, sigma, strength)

    def masked_argmax_f32(self, logits: F32, allowed: NDArray[np.bool_]) -> tuple[int, float]:
        """reference.masked_argmax_f32"""
        return self._cpu.masked_argmax_f32(logits, allowed)

    def decoder(self, shape: DecoderShape, weights: Weights) -> GuardedSession:
        """A session over checked weights."""
        return GuardedSession(self, _Floats(shape, weights))

    def quantised_decoder(self, shape: DecoderShape, weights: QuantisedWeights, *, threads: int = 1) -> GuardedSession:
        """A session over int8 and int4 weights; threads: of the CPU, should it come to that."""
        return GuardedSession(self, _Quantised(shape, weights, threads))

    def on_gpu(self, model: _Floats | _Quantised) -> CudaSession | None:
        """A session there, after kernels of these widths were proved right; None where the GPU is lost."""
        if self._gpu is None:
            return None
        try:
            prove(self._gpu, model.shape, model.storage)
            return model.on_gpu(self._gpu)
        except BackendError as error:
            self.lose(error)
            return None

    def on_cpu(self, model: _Floats | _Quantised) -> NativeSession:
        """A session of the CPU's set."""
        return model.on_cpu(self._cpu)

    def lose(self, error: BackendError) -> None:
        """The GPU is not asked again in this process."""
        gpu, self._gpu = self._gpu, None
        if gpu is None:
            return
        self._refusal = error
        _log.error("%s: the decoder goes on with %s: %s", error.code, self._cpu.name, error.message)
        with contextlib.suppress(BackendError):  # of another thread: its owner closes it
            gpu.device.close()


class GuardedSession:
    """A session on the GPU. When the GPU fails, the image is begun again on the CPU and what was said is said again.

    Numbers that are not finite are computed again there too, for this image only: float16 holds less than float32.
    """

    def __init__(self, kernels: GuardedKernels, model: _Floats | _Quantised) -> None:
        self._kernels, self._model = kernels, model
        self._gpu = kernels.on_gpu(model)
        self._cpu = None if self._gpu else kernels.on_cpu(model)
        self._at_work: CudaSession | NativeSession | None = self._gpu or self._cpu
        self._image: tuple[F32, F32] | None = None
        self._said: list[int] = []

    def begin(self, tokens: F32, bias: F32) -> None:
        """tokens: (n, channels); bias: (layers, n). Raises BackendError `kernels.*`."""
        self._image, self._said = (tokens, bias), []
        self._at_work = self._gpu or self._cpu
        if self._at_work is None or self._at_work is self._cpu:
            self._moved()
            return
        self._do(lambda session: session.begin(tokens, bias), lambda _session: None)  # a move begins the image

    def step(self, token: int) -> tuple[F32, F32]:
        """Logits (vocabulary,) and cross-attention maps (layers, n)."""
        answer = self._do(lambda session: session.step(token))
        self._said.append(token)
        return answer

    def generate(self, automaton: Automaton, token: int, *, keep_attention: bool = True) -> Said:
        """A whole sequence after `begin`, in one call per token or less."""
        return self._do(lambda session: session.generate(automaton, token, keep_attention=keep_attention))

    def _do(
        self,
        call: Callable[[CudaSession | NativeSession], Result],
        on_cpu: Callable[[NativeSession], Result] | None = None,
    ) -> Result:
        """`call` where the image is; after a failure of the GPU `on_cpu`, else `call`, on the CPU."""
        if self._at_work is not None and self._at_work is self._gpu:
            try:
                return call(self._gpu)
            except BackendError as error:
                self._excuse(error)
            return (on_cpu or call)(self._moved())
        return call(self._moved() if self._at_work is None else self._at_work)

    def _excuse(self, error: BackendError) -> None:
        """The GPU's failure: of the device, for good; of float16, for this image. Raises what is the input's fault."""
        if error.code.startswith("cuda.") or error.code == WRONG:
            self._kernels.lose(error)
            self._gpu = None
        elif error.code == NOT_FINITE:
            _log.warning("%s: this image is decoded on the CPU", error.code)
        else:
            raise error

    def _moved(self) -> NativeSession:
        """The CPU's session, as far as the GPU's was."""
        self._cpu = self._cpu or self._kernels.on_cpu(self._model)
        self._at_work = self._cpu
        if self._image is not None:
            self._cpu.begin(*self._image)
            for token in self._said:
                self._cpu.step(token)
        return self._cpu


def open_gpu() -> CudaKernels:
    """The GPU with its kernels loaded. Raises BackendError `cuda.*`."""
    device = open_device()
    try:
        kernels, image = load_images(device, image_folder())
    except BackendError:
        device.close()
        raise
    return CudaKernels(device, kernels, image)


def probe() -> str:
    """What GPU there is, in words, after a child opened it and both storages were proved right there.

    Raises BackendError: `cuda.*`, `kernels.wrong-result`, `cuda.crashed`, `cuda.hung`.
    """
    command = [sys.executable, "-m", "edge.reading.backends.cuda_probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"The GPU did not answer in {PROBE_TIMEOUT_S:.0f} s.", code="cuda.hung") from error
    said = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode < 0:
        raise BackendError(f"NVIDIA's driver ended the child that tried it (signal {-done.returncode}).", code=CRASHED)
    if done.returncode:
        code, _, message = said.partition(" ")
        raise BackendError(message or "The child that tries the GPU ended without a word.", code=code or CRASHED)
    return said


_opened: list[GuardedKernels] = []


def load() -> GuardedKernels:
    """The set for `worker.kernels = "cuda"`; opened once in a process, and tried again at the next call if it is lost.

    Raises BackendError `kernels.*` where the CPU's own set cannot be had.
    """
    for opened in _opened:
        if opened.usable():
            return opened
    cpu = NativeKernels()
    try:
        probe()
        guarded = GuardedKernels(cpu, open_gpu())
    except BackendError as error:
        _log.warning("%s: the decoder computes with %s: %s", error.code, cpu.name, error.message)
        return GuardedKernels(cpu, None, error)
    _opened[:] = [guarded]
    return guarded
