"""The C ABI with any arguments: null, misaligned, sizes that overflow, NaN. It answers in words and never crashes."""

from __future__ import annotations

import ctypes
import subprocess
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.reading.ops.native import NativeKernels, library_path
from edge.reading.ops.native_session import NativeSession
from edge.reading.ops.reference_quantised import quantise_decoder
from edge.reading.ops.shape import DecoderShape
from tests.kernel_abi import ALIGNMENT, DECODER_CALLS, OPERATORS, WRONG_SIZES
from tests.kernel_cases import random_weights

OK, BAD_ARGUMENT, NOT_FINITE, NOTHING_ALLOWED, WRONG_STATE = 0, 1, 2, 3, 6
SHAPE = DecoderShape(vocabulary=11, width=12, layers=2, heads=3, ffn=17, positions=5, channels=4)
FILLS = (0.5, 0.5, 0.5, -1.0, 3e38, -3e38, 1e-45, np.nan, np.inf, -np.inf)
TYPES = {"n": c_int64, "k": c_int64, "t": c_int32, "x": c_float}

sizes = st.one_of(st.integers(1, 4), st.integers(1, 4), st.sampled_from(WRONG_SIZES))
numbers = st.one_of(st.integers(-1, 5), st.sampled_from(WRONG_SIZES))
places = st.sampled_from(("here",) * 8 + ("null", "misaligned"))


@pytest.fixture(scope="module")
def library(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)
    loaded = ctypes.CDLL(str(library_path()))
    loaded.radbox_error_message.restype = ctypes.c_char_p
    for name, letters in (OPERATORS | DECODER_CALLS).items():
        function = getattr(loaded, name)
        function.restype = ctypes.c_int
        function.argtypes = [TYPES.get(letter.lower(), c_void_p) for letter in letters]
    return loaded


@pytest.fixture(scope="module")
def session(library) -> NativeSession:
    weights = quantise_decoder(SHAPE, random_weights(SHAPE, np.random.default_rng(1)), "q8")
    return NativeKernels().quantised_decoder(SHAPE, weights, threads=2, images=2, sequences=3)


class Arguments:
    """What is drawn for one call; `wrong`: whether any of it has to be refused."""

    def __init__(self, draw: Any, letters: str, decoder: int) -> None:
        self.wrong = False
        self.finite: list[np.ndarray] = []  # arrays that held numbers before the call
        self._alive: list[np.ndarray] = []
        self.values = [self._value(draw, letter, decoder) for letter in letters]

    def _value(self, draw: Any, letter: str, decoder: int) -> float | int | None:
        if letter == "x":
            return draw(st.floats(width=32))
        if letter == "n":
            number = draw(sizes)
            self.wrong |= number in WRONG_SIZES
            return number
        if letter in "kt":
            return draw(numbers)
        place = draw(places)
        if letter == "d":
            self.wrong |= place != "here"
            return decoder if place == "here" else None
        self.wrong |= place == "null" and letter.islower()
        if place == "null":
            return None
        alignment = ALIGNMENT[letter.lower()]
        self.wrong |= place == "misaligned" and alignment > 1
        array = np.zeros(1 << 14, np.float32)  # 64 KiB: more than four to the sixth floats
        if letter.lower() == "f":
            array[:] = draw(st.sampled_from(FILLS))
        elif letter == "i":
            array[:] = np.arange(array.size, dtype=np.int32).view(np.float32)
        if letter.lower() == "f" and np.isfinite(array[0]) and place == "here":
            self.finite.append(array)
        self._alive.append(array)
        return int(array.ctypes.data) + (1 if place == "misaligned" else 0)


def check(library: ctypes.CDLL, name: str, arguments: Arguments, allowed: set[int]) -> None:
    status = getattr(library, name)(*arguments.values)
    message = library.radbox_error_message().decode()
    if arguments.wrong:
        assert status == BAD_ARGUMENT, (name, status)
    assert status in allowed, (name, status, message)
    if status != OK:
        assert message.startswith((name, "expected"))
        assert "expected" in message
        assert "got" in message
    elif name != "radbox_masked_top_k_f32":  # -inf where fewer are allowed
        assert all(np.isfinite(array).all() for array in arguments.finite), name


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_operators_answer_any_arguments(library, name, data):
    arguments = Arguments(data.draw, OPERATORS[name], 0)
    check(library, name, arguments, {OK, BAD_ARGUMENT, NOT_FINITE, NOTHING_ALLOWED})


@pytest.mark.parametrize("name", DECODER_CALLS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_decoder_answers_any_arguments(library, session, name, data):
    session.begin(np.ones((4, SHAPE.channels), np.float32), np.zeros((SHAPE.layers, 4), np.float32))
    arguments = Arguments(data.draw, DECODER_CALLS[name], session._handle.value or 0)
    check(library, name, arguments, {OK, BAD_ARGUMENT, NOT_FINITE, NOTHING_ALLOWED, WRONG_STATE})
