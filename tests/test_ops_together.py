"""A queue of images and the beams of one image: in one pass over the weights, the same tokens as one by one."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from edge.errors import BackendError
from edge.reading.ops.automaton import Automaton
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.native_session import NativeSession
from edge.reading.ops.reference_quantised import quantise_decoder
from edge.reading.ops.shape import DecoderShape
from edge.reading.ops.together import generate_together
from tests.kernel_cases import random_weights
from tests.kernel_sets import SETS, chosen

SHAPE = DecoderShape(vocabulary=11, width=40, layers=2, heads=5, ffn=70, positions=12, channels=17)
FIRST, END = 1, 2
TOKENS = 29


@pytest.fixture(scope="module", autouse=True)
def built(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)


@pytest.fixture(params=SETS)
def native(request) -> NativeKernels:
    return chosen(request.param)


def grammar() -> Automaton:
    """Anything but the first token, and the end from the second step on: sequences of different lengths."""
    allowed = np.ones((3, 11), np.uint8)
    allowed[:, FIRST], allowed[0, END], allowed[2] = 0, 0, 0
    following = np.ones((3, 11), np.int32)
    following[1, END] = 2
    return Automaton(allowed, following, start=0, final=2)


def images(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    g = np.random.default_rng(6)
    return [
        (g.standard_normal((TOKENS, 17), np.float32), g.standard_normal((2, TOKENS), np.float32)) for _ in range(count)
    ]


def made(native: NativeKernels, precision: str, **limits: int) -> NativeSession:
    weights = random_weights(SHAPE, np.random.default_rng(5))
    weights["head.bias"][END] += 1.0  # some end early
    for layer in range(SHAPE.layers):
        weights[f"layers.{layer}.gate_scale"][:] = 2.0  # the image decides
    return native.quantised_decoder(SHAPE, quantise_decoder(SHAPE, weights, precision), **limits)


@pytest.mark.parametrize("precision", ["q8", "q4"])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_queue_of_images_says_what_each_says_alone(native, precision, count):
    pictures = images(count)
    queue = made(native, precision, threads=2, images=count, sequences=count)
    for image, picture in enumerate(pictures):
        queue.begin_image(image, *picture)
    together = generate_together(native, queue, grammar(), FIRST, range(count))
    alone = made(native, precision)
    lengths = set()
    for picture, said in zip(pictures, together, strict=True):
        alone.begin(*picture)
        expected = alone.generate(grammar(), FIRST, keep_attention=False)
        np.testing.assert_array_equal(said.tokens, expected.tokens)
        np.testing.assert_array_equal(said.log_probabilities, expected.log_probabilities)
        assert said.ended == expected.ended
        lengths.add(said.tokens.size)
    if count == 8:
        assert len(lengths) > 1, "all of the same length: nothing was left out of a batch"


def test_too_long_a_queue_is_refused(native):
    with pytest.raises(BackendError, match="1 to 8 images, got 9"):
        generate_together(native, made(native, "q8"), grammar(), FIRST, [0] * 9)


def ranked(scores: dict[tuple[int, ...], float], width: int) -> list[tuple[int, ...]]:
    return sorted(scores, key=lambda said: (-scores[said], said))[:width]


@pytest.mark.parametrize("width", [2, 4])
def test_beams_find_what_the_search_without_a_cache_finds(native, width):
    """Beams fork by copy_sequence; the oracle feeds every prefix from its start."""
    (picture,), allowed = images(1), np.ones(11, np.bool_)
    search, oracle = made(native, "q8", sequences=2 * width), made(native, "q8")
    search.begin_image(0, *picture)
    search.start_sequence(0, 0)
    beams: dict[tuple[int, ...], float] = {(FIRST,): 0.0}
    found = dict(beams)
    order: list[tuple[int, ...]] = [(FIRST,)]
    for step in range(5):
        at = (step % 2) * width
        logits = search.step_batch([said[-1] for said in order], [at + beam for beam in range(len(order))])
        beams = {
            (*said, int(token)): beams[said] + float(log)
            for said, row in zip(order, logits, strict=True)
            for token, log in zip(*native.masked_top_k_f32(row, allowed, width), strict=True)
        }
        following = ranked(beams, width)
        for beam, said in enumerate(following):
            search.copy_sequence(at + order.index(said[:-1]), width - at + beam)
        beams, order = {said: beams[said] for said in following}, following
        found = {
            (*said, int(token)): found[said] + float(log)
            for said in found
            for token, log in zip(*native.masked_top_k_f32(fed(oracle, picture, said), allowed, width), strict=True)
        }
        found = {said: found[said] for said in ranked(found, width)}
    assert beams == found


def fed(session: NativeSession, picture: tuple[np.ndarray, np.ndarray], said: tuple[int, ...]) -> np.ndarray:
    session.begin(*picture)
    return [session.step(token)[0] for token in said][-1]
