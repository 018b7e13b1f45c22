"""The decoder: cached against uncached, native against numpy, the bias in every step, the grammar obeyed."""

from __future__ import annotations

import gc
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest

from edge.errors import BackendError, BundleError
from edge.reading.decoder import BOS, FINDING_TOKENS, Decoder, DecoderConfig
from edge.reading.ops import load_kernels
from tests.kernel_sets import SETS, chosen

TOLERANCE = 1e-5
EOS, NORMAL = 2, 3
SMALL = DecoderConfig(vocabulary=30, width=24, layers=2, heads=3, ffn=40, positions=64, bias_sigma=(2.2, 0.35))
FULL = DecoderConfig()


def random_weights(config: DecoderConfig, seed: int, channels: int = 128) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in config.shape(channels).weight_shapes().items():
        scale = 1.0 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.3
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weights[name] = (mean + generator.standard_normal(shape) * scale).astype(np.float32)
    return weights


def random_image(seed: int, channels: int = 128) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    tokens = generator.standard_normal((256, channels)).astype(np.float32)
    masks = np.zeros((3, 16, 16), np.float32)
    for lung in range(2):
        top, left = generator.integers(1, 6), 1 + 8 * lung
        masks[lung, top : top + 9, left : left + 5] = 0.9
    return tokens, masks


@dataclass(frozen=True)
class Findings:
    """The findings grammar in small: <bos> ( normal | (FINDING SIDE ZONE CERTAINTY)+ ) <eos>, all sides and zones."""

    words: tuple[range, ...] = (FINDING_TOKENS, range(18, 23), range(23, 28), range(28, 30))

    def start(self) -> tuple[int, ...]:
        return (BOS,)

    def mask(self, state: tuple[int, ...]) -> np.ndarray:
        allowed = np.zeros(30, np.bool_)
        said = len(state) - 1
        if state[-1] == NORMAL:
            allowed[EOS] = True
        elif said % 4:
            allowed[list(self.words[said % 4])] = True
        else:
            last = state[-4] if said else FINDING_TOKENS.start - 1
            allowed[last + 1 : FINDING_TOKENS.stop] = True
            allowed[EOS if said else NORMAL] = True
        return allowed

    def advance(self, state: tuple[int, ...], token: int) -> tuple[int, ...]:
        assert self.mask(state)[token]
        return (*state, token)

    def ended(self, state: tuple[int, ...]) -> bool:
        return state[-1] == EOS


class Anything:
    """Every token at every step, for ever: only the decoder's positions end it."""

    def start(self) -> int:
        return 0

    def mask(self, state: int) -> np.ndarray:
        return np.ones(30, np.bool_)

    def advance(self, state: int, token: int) -> int:
        return state + 1

    def ended(self, state: int) -> bool:
        return False


class DeadEnd(Anything):
    """Nothing at all after two tokens."""

    def mask(self, state: int) -> np.ndarray:
        return np.full(30, state < 2)


def load(config: DecoderConfig, kernels: str, seed: int = 0, **changes: np.ndarray) -> Decoder:
    return Decoder.load(config, {**random_weights(config, seed), **changes}, kernels)


def cached_logits(config, kernels, weights, tokens, masks, prefix):
    """The same logits as Decoder.logits, by the cached step."""
    operators = load_kernels(kernels)
    shape = config.shape(tokens.shape[1])
    session = operators.decoder(shape, shape.check_weights(weights))
    session.begin(tokens, operators.anatomical_bias_f32(masks, config.bias_sigma, config.bias_strength))
    return np.stack([session.step(token)[0] for token in prefix])


@pytest.fixture(scope="module", autouse=True)
def built(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)


@pytest.fixture(params=["numpy", *SETS])
def kernels(request):
    return request.param if request.param == "numpy" else chosen(request.param).name


@pytest.mark.parametrize(
    ("config", "prefix"), [(SMALL, tuple(range(1, 30))), (FULL, (1, 5, 18, 24, 28)), (FULL, (1,))], ids=str
)
def test_cached_steps_equal_the_uncached_recomputation(kernels, config, prefix):
    weights, (tokens, masks) = random_weights(config, 3), random_image(4)
    uncached = Decoder.load(config, weights, "numpy").logits(tokens, masks, prefix)
    cached = cached_logits(config, kernels, weights, tokens, masks, prefix)
    assert uncached.shape == (len(prefix), 30)
    assert np.abs(cached - uncached).max() / np.abs(uncached).max() <= TOLERANCE


def test_the_bias_changes_every_cached_step(kernels):
    weights, (tokens, masks), (_, others) = random_weights(FULL, 3), random_image(4), random_image(7)
    prefix = (1, 5, 18, 24, 28)
    one, other = (cached_logits(FULL, kernels, weights, tokens, m, prefix) for m in (masks, others))
    assert (masks != others).any()
    assert (np.abs(one - other).max(axis=1) > 1e-3).all()


def test_a_closed_gate_makes_the_output_independent_of_the_image(kernels):
    closed = {f"layers.{layer}.gate_scale": np.zeros(1, np.float32) for layer in range(FULL.layers)}
    weights = {**random_weights(FULL, 3), **closed}
    one, other = (cached_logits(FULL, kernels, weights, *random_image(seed), (1, 5, 18)) for seed in (4, 5))
    np.testing.assert_array_equal(one, other)
    opened = random_weights(FULL, 3)
    one, other = (cached_logits(FULL, kernels, opened, *random_image(seed), (1, 5, 18)) for seed in (4, 5))
    assert np.abs(one - other).max() > 1e-2


def test_generate_says_only_what_the_grammar_allows(kernels):
    grammar, normal, long = Findings(), 0, 0
    for seed in range(30):
        # The head's bias steers the random decoder between the two ends of the grammar.
        head = random_weights(SMALL, seed)["head.bias"]
        head[[EOS, NORMAL]] += np.float32(seed % 5 - 3)
        decoder = load(SMALL, kernels, seed, **{"head.bias": head})
        generated = decoder.generate(*random_image(seed), grammar)
        state = grammar.start()
        for token in generated.tokens[1:]:
            state = grammar.advance(state, token)
        assert generated.tokens[0] == BOS
        assert grammar.ended(state)
        assert generated.steps == len(generated.tokens) - 1 == len(generated.log_probabilities) - 1
        assert all(-20.0 < log <= 0.0 for log in generated.log_probabilities)
        findings = [at for at, token in enumerate(generated.tokens) if token in FINDING_TOKENS]
        assert list(generated.cross_attention) == findings
        for attention in generated.cross_attention.values():
            assert attention.shape == (SMALL.layers, 256)
            assert attention.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
        normal += generated.tokens == (BOS, NORMAL, EOS)
        long += len(findings) > 1
    assert normal > 0
    assert long > 0


@pytest.mark.parametrize("name", SETS)
def test_native_and_numpy_generate_the_same_tokens(name):
    for seed in range(6):
        head = random_weights(FULL, seed)["head.bias"] - np.eye(30, dtype=np.float32)[EOS] * 4
        numpy, native = (load(FULL, k, seed, **{"head.bias": head}) for k in ("numpy", chosen(name).name))
        image = random_image(seed)
        expected, got = (decoder.generate(*image, Findings()) for decoder in (numpy, native))
        assert got.tokens == expected.tokens
        assert got.steps >= 2
        assert got.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
        for at, attention in expected.cross_attention.items():
            assert got.cross_attention[at] == pytest.approx(attention, abs=1e-5)


def test_the_log_probability_is_among_the_allowed_tokens(kernels):
    decoder, image = load(SMALL, kernels), random_image(0)
    generated = decoder.generate(*image, Findings(), keep_attention=False)
    first = decoder.logits(*image, (BOS,))[0].astype(np.float64)
    allowed = first[Findings().mask((BOS,))]
    assert generated.log_probabilities[1] == pytest.approx(allowed.max() - np.log(np.exp(allowed).sum()), abs=1e-5)
    assert generated.cross_attention == {}


def test_the_same_image_gives_the_same_bits_whatever_came_before(kernels):
    decoder = load(SMALL, kernels)
    first = decoder.generate(*random_image(1), Findings())
    decoder.generate(*random_image(2), Findings())
    again = decoder.generate(*random_image(1), Findings())
    assert again.tokens == first.tokens
    assert again.log_probabilities == first.log_probabilities
    for at, attention in first.cross_attention.items():
        np.testing.assert_array_equal(again.cross_attention[at], attention)


def test_a_sequence_without_end_stops_at_the_positions(kernels):
    with pytest.raises(BackendError, match="within 64 steps") as caught:
        load(SMALL, kernels).generate(*random_image(1), Anything())
    assert caught.value.code == "decoder.too-long"


def test_a_grammar_that_leads_nowhere_is_an_error(kernels):
    with pytest.raises(BackendError, match="at step 3") as caught:
        load(SMALL, kernels).generate(*random_image(1), DeadEnd())
    assert caught.value.code == "decoder.nothing-allowed"


@pytest.mark.parametrize("which", [0, 1], ids=["tokens", "masks"])
def test_nan_from_the_encoder_is_an_error_and_the_next_image_works(kernels, which):
    decoder, (tokens, masks) = load(SMALL, kernels), random_image(1)
    broken = tokens.copy(), masks.copy()
    broken[which].flat[7] = np.nan
    with pytest.raises(BackendError) as caught:
        decoder.generate(broken[0], broken[1], Findings())
    assert caught.value.code == "kernels.not-finite"
    assert decoder.generate(tokens, masks, Findings()).steps >= 2


def test_wrong_image_shapes_name_what_was_expected(kernels):
    decoder, (tokens, masks) = load(SMALL, kernels), random_image(1)
    wrong: list[tuple[np.ndarray, np.ndarray]] = [
        (tokens[None], masks),
        (tokens, masks[0]),
        (tokens[:255], masks),
        (tokens[:, :127], masks),
        (tokens.astype(np.float64), masks),
    ]
    for wrong_tokens, wrong_masks in wrong:
        with pytest.raises(BackendError, match=r"expected .* got") as caught:
            decoder.generate(wrong_tokens, wrong_masks, Findings())
        assert caught.value.code == "kernels.bad-argument"


def test_a_transposed_view_from_a_runtime_is_read_right(kernels):
    decoder, (tokens, masks) = load(SMALL, kernels), random_image(1)
    expected = decoder.generate(tokens, masks, Findings())
    assert decoder.generate(np.asfortranarray(tokens), np.asfortranarray(masks), Findings()).tokens == expected.tokens


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layers.1.up.weight": None}, "none named layers.1.up.weight"),
        ({"layers.2.up.weight": np.ones((40, 24), np.float32)}, "unknown ones: layers.2.up.weight"),
        ({"head.weight": np.ones((29, 24), np.float32)}, r"head.weight .*\(30, 24\), got .*\(29, 24\)"),
        ({"norm.bias": np.ones(24)}, "norm.bias as float32 .* got float64"),
        ({"norm.bias": np.full(24, np.nan, np.float32)}, "finite numbers in norm.bias"),
        ({"vis.weight": np.ones(24, np.float32)}, "vis.weight of shape"),
        ({"vis.weight": None}, "vis.weight of shape"),
    ],
)
def test_wrong_weights_are_refused_by_name(change, sentence):
    weights = {**random_weights(SMALL, 0), **change}
    with pytest.raises(BundleError, match=sentence):
        Decoder.load(SMALL, {name: array for name, array in weights.items() if array is not None}, "numpy")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": 5}, "heads that divide"),
        ({"layers": 0}, "layers as a whole number above 0"),
        ({"bias_sigma": (1.0,)}, "for 3 layers, got 1"),
        ({"bias_sigma": (1.0, 1.0, -1.0)}, "0 to 1024"),
        ({"bias_strength": float("nan")}, "finite bias_strength"),
        ({"vocabulary": 1}, "holds <bos>"),
    ],
)
def test_wrong_sizes_are_refused(change, sentence):
    with pytest.raises(BundleError, match=sentence):
        DecoderConfig(**change)


def test_a_step_needs_a_begin_and_a_free_position(kernels):
    operators = load_kernels(kernels)
    shape = DecoderConfig(width=4, layers=1, heads=1, ffn=4, positions=2, bias_sigma=(1.0,)).shape(3)
    weights = {name: np.ones(size, np.float32) for name, size in shape.weight_shapes().items()}
    session = operators.decoder(shape, weights)
    with pytest.raises(BackendError, match="before a step") as caught:
        session.step(1)
    assert caught.value.code == "kernels.wrong-state"
    session.begin(np.ones((5, 3), np.float32), np.zeros((1, 5), np.float32))
    with pytest.raises(BackendError, match="token of 0 to 29, got 30"):
        session.step(30)
    for token in (1, 2):
        session.step(token)
    with pytest.raises(BackendError, match="at most 2 steps") as caught:
        session.step(3)
    assert caught.value.code == "kernels.wrong-state"


def test_a_hidden_image_is_an_error_in_the_step(kernels):
    operators = load_kernels(kernels)
    weights, (tokens, _) = random_weights(SMALL, 0), random_image(0)
    session = operators.decoder(SMALL.shape(128), weights)
    session.begin(tokens, np.full((2, 256), -np.inf, np.float32))
    with pytest.raises(BackendError) as caught:
        session.step(1)
    assert caught.value.code == "kernels.nothing-allowed"


def test_decoders_free_their_memory_without_harm():
    for _ in range(3):
        decoder = load(SMALL, "reference")
        decoder.generate(*random_image(1), Findings())
        del decoder
    gc.collect()
    with pytest.raises(BackendError, match="expected a weight named"):
        load_kernels("reference").decoder(SMALL.shape(128), {"vis.weight": np.ones((24, 128), np.float32)})
