"""A stand-in for pycuda.driver: a "GPU" whose memory is the host's and whose stream does everything at once."""

from __future__ import annotations

import ctypes


class Error(Exception):
    pass


class Context:
    def push(self):
        pass

    def pop(self):
        pass

    def detach(self):
        pass


class Device:
    def __init__(self, ordinal):
        pass

    def retain_primary_context(self):
        return Context()

    def name(self):
        return "Stand-in"

    def compute_capability(self):
        return (8, 7)


class Stream:
    handle = 4096

    def __init__(self, flags):
        pass

    def synchronize(self):
        pass


class Memory:
    def __init__(self, size_bytes):
        self._buffer = ctypes.create_string_buffer(size_bytes)

    def __int__(self):
        return ctypes.addressof(self._buffer)

    def free(self):
        pass


def init():
    pass


def get_driver_version():
    return 12060


def mem_alloc(size_bytes):
    return Memory(size_bytes)


def memcpy_htod_async(address, source, stream):
    ctypes.memmove(address, source.ctypes.data, source.size)


def memcpy_dtoh_async(target, address, stream):
    ctypes.memmove(target.ctypes.data, address, target.size)
