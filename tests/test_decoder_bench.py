"""tools/bench decoder: what it prints holds together, and a peer that is not there is named, not guessed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from edge.reading.ops.shape import DecoderShape
from tools.decoder_bench import main as bench
from tools.decoder_bench.ours import Beams, Ours, generated_tokens_per_s
from tools.decoder_bench.sampling import measure
from tools.decoder_bench.sizes import SIZES, Size, bytes_per_token, random_model, weights_per_token

TINY = Size("T", DecoderShape(64, 32, 2, 2, 64, 128, 16), 9)


@pytest.fixture(scope="module", autouse=True)
def built(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)


def test_the_sizes_are_those_of_the_target():
    assert [
        (s.shape.layers, s.shape.width, s.shape.ffn, s.shape.vocabulary, s.image_tokens) for s in SIZES.values()
    ] == [
        (6, 256, 1024, 4096, 196),
        (12, 512, 2048, 8192, 400),
    ]
    for size in SIZES.values():
        per_layer = 12 * size.shape.width**2
        assert weights_per_token(size.shape) == size.shape.layers * per_layer + size.shape.vocabulary * size.shape.width
        assert 0.5 < bytes_per_token(size, "q4") / bytes_per_token(size, "q8") < 0.65


@pytest.mark.parametrize("precision", ["q8", "q4"])
def test_our_contestant_goes_back_to_the_same_tokens(precision):
    ours = Ours(random_model(TINY), precision, 1)
    logits = []
    for _ in range(2):
        ours.rewind()
        ours.token()
        logits.append(ours.logits.copy())
    np.testing.assert_array_equal(logits[0], logits[1])
    assert generated_tokens_per_s(ours, random_model(TINY)) > 0


def test_beams_go_back_to_the_same_tokens_and_leave_the_timed_sequence_alone():
    ours = Ours(random_model(TINY), "q8", 1)
    ours.rewind()
    beams, found = Beams(ours, 4), []
    for _ in range(2):
        beams.rewind()
        beams.token()
        found.append(beams._logits.copy())
    np.testing.assert_array_equal(found[0], found[1])
    ours.token()
    alone = ours.logits.copy()
    ours.rewind()
    ours.token()
    np.testing.assert_array_equal(ours.logits, alone)


def test_a_preempted_token_is_no_sample(monkeypatch):
    ours = Ours(random_model(TINY), "q8", 1)
    counts = iter(range(10_000))
    monkeypatch.setattr("tools.decoder_bench.sampling._preemptions", lambda: next(counts))
    (measured,) = measure([ours], 0.0)
    assert measured.samples == 0
    assert measured.discarded == 18
    assert np.isnan(measured.median_s)


def test_the_run_prints_ratio_and_share_of_the_limit(monkeypatch, capsys):
    for module in ("onnx", "torch", "ctranslate2", "gguf"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(bench, "SIZES", {"T": TINY})
    assert bench.main(["--json", "--sizes", "T", "--threads", "1,2", "--seconds", "0.2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["not_installed"]) == 4
    assert [run["threads"] for run in result["runs"]] == [1, 2]
    for run in result["runs"]:
        for own in run["ours"].values():
            assert own["best_peer"] is None
            assert own["limit_fraction"] > 0
            assert own["tokens_per_s"] > 0
    assert bench.main(["--sizes", "T", "--threads", "1", "--seconds", "0.2"]) == 0
    assert "not installed, not measured" in capsys.readouterr().out


def test_an_unknown_size_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--sizes", "XXL"])
    assert "expected sizes of S, M, got XXL" in capsys.readouterr().err
