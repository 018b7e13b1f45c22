"""A stand-in for NVIDIA's `tensorrt`: the names that the adapter uses, ONNX Runtime underneath, memory of the host.

What it builds is no engine, and nothing here says anything of TensorRT itself: it lets the adapter's own code, its
children, its cache and the box's way to and from it run on a machine without a GPU. The environment variable
RADBOX_STAND_IN makes it fail: crash, hang, refuse, no-resource, no-memory, torn-plan, wrong or slow.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import time
from enum import IntEnum
from pathlib import Path

import numpy as np
import onnxruntime

__version__ = "10.3.0"
MAGIC = b"stand-in plan "
STEPS = 5
MODE = os.environ.get("RADBOX_STAND_IN", "")


class DataType(IntEnum):
    FLOAT = 0


class TensorIOMode(IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        pass


class IProgressMonitor:
    def __init__(self):
        pass


class Tensor:
    def __init__(self, value):
        self.name, self.shape, self.dtype = value.name, tuple(value.shape), DataType.FLOAT


class Network:
    def __init__(self):
        self.content = b""
        self.inputs, self.outputs = [], []

    @property
    def num_inputs(self):
        return len(self.inputs)

    @property
    def num_outputs(self):
        return len(self.outputs)

    def get_input(self, i):
        return self.inputs[i]

    def get_output(self, i):
        return self.outputs[i]


class Problem:
    def __init__(self, text):
        self._text = text

    def desc(self):
        return self._text


class OnnxParser:
    def __init__(self, network, log):
        self._network, self._problems = network, []

    @property
    def num_errors(self):
        return len(self._problems)

    def get_error(self, i):
        return self._problems[i]

    def parse_from_file(self, path):
        if MODE == "refuse":
            self._problems.append(Problem("input has type Int32 but must have type FP8, FP4, Int4, Int8"))
            return False
        self._network.content = Path(path).read_bytes()
        session = open_session(self._network.content)
        self._network.inputs = [Tensor(value) for value in session.get_inputs()]
        self._network.outputs = [Tensor(value) for value in session.get_outputs()]
        return True


class TimingCache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return self.content + b"."


class Config:
    builder_optimization_level = 3
    progress_monitor = None

    def set_memory_pool_limit(self, pool, size):
        assert size > 0

    def create_timing_cache(self, content):
        return TimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        return cache.content != b"torn"


class Builder:
    def __init__(self, log):
        self._log = log

    def create_network(self, flags):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self):
        return Config()

    def _says(self, text):
        self._log.log(ILogger.Severity.ERROR, text)

    def build_serialized_network(self, network, config):
        if MODE == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if MODE == "no-resource":
            self._says("Unable to load library: libnvinfer_builder_resource_sm87.so.10.3.0")
            return None
        if MODE == "no-memory":
            self._says("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)")
            return None
        monitor = config.progress_monitor
        monitor.phase_start("Tactic Selection", "", STEPS)
        step = 0
        while step < STEPS or MODE in ("hang", "slow"):
            if MODE == "hang":
                time.sleep(0.05)  # and never asks whether to stop
                continue
            if not monitor.step_complete("Tactic Selection", step):
                return None
            step += 1
            if MODE == "slow":
                time.sleep(0.02)
        monitor.phase_finish("Tactic Selection")
        return MAGIC + hashlib.sha256(network.content).digest() + network.content


class Context:
    def __init__(self, session):
        self._session = session
        self._addresses = {}

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        assert stream
        inputs = {value.name: self._memory(value) for value in self._session.get_inputs()}
        values = self._session.run(None, inputs)
        for output, value in zip(self._session.get_outputs(), values, strict=True):
            self._memory(output)[...] = value + (1.0 if MODE == "wrong" else 0.0)
        return True

    def _memory(self, value):
        shape = tuple(value.shape)
        raw = (ctypes.c_float * int(np.prod(shape))).from_address(self._addresses[value.name])
        return np.ctypeslib.as_array(raw).reshape(shape)


class Engine:
    def __init__(self, content):
        self._session = open_session(content)
        self._inputs = self._session.get_inputs()
        self._values = {value.name: value for value in [*self._inputs, *self._session.get_outputs()]}

    @property
    def num_io_tensors(self):
        return len(self._values)

    def get_tensor_name(self, i):
        return list(self._values)[i]

    def get_tensor_shape(self, name):
        return tuple(self._values[name].shape)

    def get_tensor_dtype(self, name):
        return DataType.FLOAT

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == self._inputs[0].name else TensorIOMode.OUTPUT

    def create_execution_context(self):
        return Context(self._session)


class Runtime:
    def __init__(self, log):
        self._log = log

    def deserialize_cuda_engine(self, plan):
        start = len(MAGIC) + 32
        if MODE == "torn-plan" or plan[:start] != MAGIC + hashlib.sha256(plan[start:]).digest():
            self._log.log(ILogger.Severity.ERROR, "Serialization assertion stdArchiveReader failed")
            return None
        return Engine(plan[start:])


def open_session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
