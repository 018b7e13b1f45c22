"""Every kernel against numpy, for whatever CudaDevice runs them: the shim in the tests, a GPU in tools/bench_cuda.

A case takes a Rig and raises AssertionError with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from edge.reading.backends.cuda_launches import STATE_WORDS, HeadRows, Norm
from edge.reading.backends.cuda_weights import Storage
from tools.cuda.attention_cases import attend, attention_maps, bad_attention, gate_project, hidden_keys
from tools.cuda.rig import (
    EPSILON,
    GUARD,
    NOT_FINITE,
    NOTHING_ALLOWED,
    NULL,
    OK,
    Rig,
    close,
    gelu,
    layer_norm,
    matrix,
    random,
    store_keys,
)

Case = Callable[[Rig], None]


# ---- matrix-vector ------------------------------------------------------------------------------------------------


def linear_add(rig: Rig, storage: Storage, rows: int, columns: int, scale: float = 1.0) -> None:
    x, before = random(1, columns, scale=scale), random(2, rows, scale=scale)
    weight, bias, addresses = matrix(rig, storage, rows, columns)
    y, state = rig.put(np.append(before, GUARD)), rig.state()
    rig.launches(storage).linear_add(rig.put(x), addresses, rows, columns, y, state)
    got = rig.get(y, rows + 1)
    assert rig.status(state) == OK
    assert got[-1] == GUARD
    close(got[:-1], before + weight @ x + bias)


def norm_linear(rig: Rig, storage: Storage, after: str, rows: int, columns: int, scale: float = 1.0) -> None:
    x, norm_weight, norm_bias = random(1, columns, scale=scale), random(3, columns), random(4, columns)
    weight, bias, addresses = matrix(rig, storage, rows, columns)
    y, state = rig.put(np.full(rows + 1, GUARD)), rig.state()
    norm = Norm(rig.put(norm_weight), rig.put(norm_bias), EPSILON)
    rig.launches(storage).norm_linear(after, rig.put(x), norm, addresses, rows, columns, y, state)
    got = rig.get(y, rows + 1)
    assert rig.status(state) == OK
    assert got[-1] == GUARD
    expected = weight @ layer_norm(x, norm_weight, norm_bias) + bias
    close(got[:-1], gelu(expected) if after == "gelu" else expected)


def not_finite_rows(rig: Rig, storage: Storage, bad: float) -> None:
    """A NaN or an infinity in the input, or an overflow of its variance, is a status."""
    x = random(1, 33)
    x[17] = bad
    for run in ("linear", "norm"):
        _, _, addresses = matrix(rig, storage, 9, 33)
        y, state = rig.put(np.zeros(9, np.float32)), rig.state()
        ones = rig.put(np.ones(33, np.float32))
        if run == "linear" and abs(bad) < np.inf:
            continue
        if run == "linear":
            rig.launches(storage).linear_add(rig.put(x), addresses, 9, 33, y, state)
        else:
            launch = rig.launches(storage).norm_linear
            launch("store", rig.put(x), Norm(ones, ones, EPSILON), addresses, 9, 33, y, state)
        assert rig.status(state) == NOT_FINITE, run


# ---- the ends of a step -------------------------------------------------------------------------------------------


def embed(rig: Rig, token: int, position: int, status: int) -> None:
    table, positions = random(1, 7, 133), random(2, 5, 133)
    x, state = rig.put(np.full(134, GUARD)), rig.state(token=token, position=position, status=NOT_FINITE)
    rig.launches().embed(rig.put(table), rig.put(positions), 7, 5, 133, x, state)
    assert rig.status(state) == status
    got = rig.get(x, 134)
    assert got[-1] == GUARD
    if status == OK:
        np.testing.assert_array_equal(got[:-1], table[token] + positions[position])


def choose(rig: Rig, vocabulary: int, allowed: str) -> None:
    logits = np.rint(random(3, vocabulary, scale=2.0))  # whole numbers: ties
    mask = np.random.default_rng(4).random(vocabulary) < 0.5
    mask[:] = True if allowed == "all" else mask
    mask[vocabulary // 2] = True
    state = rig.state(position=3)
    rig.launches().masked_argmax(rig.put(logits), rig.put(mask.astype(np.uint8)), vocabulary, state)
    words = rig.get(state, STATE_WORDS, np.int32)
    candidates = np.where(mask, logits.astype(np.float64), -np.inf)
    token = int(candidates.argmax())
    assert words[1:4].tolist() == [4, OK, token]
    expected = -np.log(np.exp(candidates - candidates[token]).sum())
    assert abs(float(words[4:5].view(np.float32)[0]) - expected) < 1e-4


def refuse_to_choose(rig: Rig, why: str) -> None:
    """Nothing allowed, NaN among the logits (forbidden tokens too), a step that failed before: no token, no advance."""
    logits, mask = random(3, 300), np.ones(300, np.uint8)
    expected = NOTHING_ALLOWED if why == "nothing" else NOT_FINITE
    if why == "nothing":
        mask[:] = 0
    if why == "nan":
        logits[299], mask[299] = np.nan, 0
    state = rig.state(position=3, status=NOT_FINITE if why == "before" else OK)
    rig.launches().masked_argmax(rig.put(logits), rig.put(mask), 300, state)
    assert rig.get(state, STATE_WORDS, np.int32)[1:4].tolist() == [3, expected, -1]


# ---- once per image -----------------------------------------------------------------------------------------------


def project_rows(rig: Rig, storage: Storage, tokens: int, rows: int, columns: int) -> None:
    x = random(1, tokens, columns)
    weight, bias, addresses = matrix(rig, storage, rows, columns)
    y, state = rig.put(np.full(tokens * rows + 1, GUARD)), rig.state()
    rig.launches(storage).project_rows(rig.put(x), addresses, tokens, rows, columns, y, state)
    got = rig.get(y, tokens * rows + 1)
    assert rig.status(state) == OK
    assert got[-1] == GUARD
    close(got[:-1].reshape(tokens, rows), x @ weight.T + bias)


def norm_rows(rig: Rig, tokens: int, width: int, scale: float = 1.0) -> None:
    x, weight, bias = random(1, tokens, width, scale=scale), random(2, width), random(3, width)
    y, state = rig.put(np.full(tokens * width + 1, GUARD)), rig.state()
    rig.launches().norm_rows(rig.put(x), Norm(rig.put(weight), rig.put(bias), EPSILON), tokens, width, y, state)
    got = rig.get(y, tokens * width + 1)
    assert rig.status(state) == OK
    assert got[-1] == GUARD
    close(got[:-1].reshape(tokens, width), layer_norm(x, weight, bias))


def store_image(rig: Rig, storage: Storage, heads: int, dh: int, tokens: int) -> None:
    kv = random(1, tokens, 2, heads, dh)
    kv[tokens // 2, 0, 0] = 0.0  # a row of zeros has no scale
    expected, scales, _ = store_keys(kv.transpose(1, 2, 0, 3), storage)
    keys, values = (rig.put(np.zeros_like(expected[0])) for _ in range(2))
    key_scales, value_scales = (rig.put(np.full_like(scales[0], GUARD)) for _ in range(2))
    state = rig.state()
    image = HeadRows(keys, values, key_scales, value_scales)
    rig.launches(keys=storage).store_image(rig.put(kv), tokens, heads * dh, heads, image, state)
    assert rig.status(state) == OK
    for part, address in enumerate((keys, values)):
        got = rig.get(address, expected[part].shape, expected.dtype)
        close(got.astype(np.float32), expected[part].astype(np.float64), 0 if storage == "f16" else 1 / 127)
    if storage == "i8":
        close(rig.get(key_scales, scales[0].shape), scales[0].astype(np.float64), 1e-6)
        close(rig.get(value_scales, scales[1].shape), scales[1].astype(np.float64), 1e-6)


def stored_overflow(rig: Rig) -> None:
    """65520 does not fit float16: a status, not an infinity among the keys."""
    kv = np.full((1, 2, 16), 65520.0, np.float32)
    state = rig.state()
    rows = HeadRows(rig.put(np.zeros(32, np.float16)), rig.put(np.zeros(32, np.float16)), NULL, NULL)
    rig.launches().store_image(rig.put(kv), 1, 16, 1, rows, state)
    assert rig.status(state) == NOT_FINITE


def all_cases() -> dict[str, Case]:
    """Every case by name."""
    cases: dict[str, Case] = {}

    def add(function: Callable[..., None], *arguments: Any, **keywords: Any) -> None:
        words = [function.__name__, *map(str, arguments), *(f"{k}={v}" for k, v in keywords.items())]
        cases["-".join(words)] = partial(_run, function, arguments, keywords)

    storages: tuple[Storage, Storage] = ("f16", "i8")
    for storage in storages:
        for rows, columns in ((1, 1), (30, 128), (9, 33), (17, 257), (5, 1025)):
            add(linear_add, storage, rows, columns)
        for scale in (1e-30, 1e15):
            add(linear_add, storage, 9, 33, scale=scale)
        for after in ("store", "gelu"):
            for rows, columns in ((1, 1), (30, 128), (9, 33), (3, 1031), (17, 2048)):
                add(norm_linear, storage, after, rows, columns)
        for scale in (1e-30, 1e15):
            add(norm_linear, storage, "store", 9, 33, scale=scale)
        for bad in (np.nan, np.inf, -np.inf, 1e30):
            add(not_finite_rows, storage, bad)
        for heads, dh, n, position in ((1, 1, 1, 0), (2, 16, 65, 1), (3, 11, 130, 2), (2, 32, 256, 4), (1, 64, 31, 0)):
            add(attend, storage, heads, dh, n, position)
        add(attend, storage, 2, 128, 67, 3)
        add(attend, storage, 1, 64, 400, 7, positions=64)
        add(attend, storage, 2, 16, 65, 1, scale=30.0)
        add(attend, storage, 1, 32, 7, 63, positions=64, hidden="none")
        add(attention_maps, storage, 3, 32, 150)
        add(attention_maps, storage, 1, 5, 1)
        for heads, dh, n in ((2, 16, 65), (5, 3, 1), (4, 32, 256)):
            add(gate_project, storage, heads, dh, n)
        for where in ("query", "key", "value", "bias"):
            add(bad_attention, storage, where, np.nan)
            add(bad_attention, storage, where, np.inf)
        for tokens, rows, columns in ((1, 1, 1), (33, 65, 17), (5, 30, 128)):
            add(project_rows, storage, tokens, rows, columns)
        for heads, dh, tokens in ((1, 1, 1), (3, 11, 9), (2, 32, 5), (1, 128, 6), (1, 64, 3)):
            add(store_image, storage, heads, dh, tokens)
    add(bad_attention, "f16", "key", 70000.0)
    add(hidden_keys)
    add(stored_overflow)
    for token, position, status in ((6, 4, OK), (0, 0, OK), (7, 0, 1), (-1, 0, 1), (0, 5, 6), (0, -1, 6)):
        add(embed, token, position, status)
    for vocabulary, allowed in ((1, "all"), (30, "some"), (257, "some"), (1000, "all"), (8192, "some")):
        add(choose, vocabulary, allowed)
    for why in ("nothing", "nan", "before"):
        add(refuse_to_choose, why)
    for tokens, width in ((1, 1), (3, 129), (2, 128)):
        add(norm_rows, tokens, width)
    add(norm_rows, 2, 33, scale=1e15)
    return cases


def _run(function: Callable[..., None], arguments: tuple[Any, ...], keywords: dict[str, Any], rig: Rig) -> None:
    try:
        function(rig, *arguments, **keywords)
    finally:
        rig.clear()
