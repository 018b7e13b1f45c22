"""Torch modules whose forward is one StableHLO composite, and the small TFLite files that the tests read.

    python -m models.composites FOLDER        writes every file (training environment)

A composite is a named box around ordinary operators. A runtime that knows the name may compute the box in one piece
(kernels/tflite does); any other runs the operators inside. docs/tflite-custom-op.md has names, inputs and attributes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litert_torch.hlfb import StableHLOCompositeBuilder
from torch import Tensor, nn

from edge.reading.backends.custom_ops import COMPOSITE_VERSION, CROSS_ATTENTION, GATE, SELECTIVE_SCAN
from edge.reading.ops.reference_scan import DIRECTIONS

REAL_ATTENTIONS = ((256, 128, 4), (196, 256, 8))
"""S, d, heads: the shipped decoder's, and those of decoder S in docs/performance.md."""


def gated_cross_attention(*inputs: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """The composite's inside: edge.reading.ops.reference.gated_cross_attention_f32, for every row of `a`.

    Inputs: a, query (1, T, d); keys, values (1, S, d); gate_weight (d,); gate_bias, gate_scale (1,); maybe bias (1, S).
    Returns (1, T, d) and the softmax averaged over the heads (1, T, S).
    """
    a, query, keys, values, gate_weight, gate_bias, gate_scale = inputs[:7]
    bias = inputs[7] if len(inputs) == 8 else None
    width = a.shape[-1]
    q, k, v = (t.reshape(1, -1, heads, width // heads).transpose(1, 2) for t in (query, keys, values))
    scores = (q @ k.transpose(-1, -2)) * (width // heads) ** -0.5
    if bias is not None:
        scores = scores + bias[:, None, None, :]
    weights = torch.softmax(scores, dim=-1)
    c = (weights @ v).transpose(1, 2).reshape(1, -1, width)
    gate = torch.tanh((a * gate_weight).sum(dim=-1, keepdim=True) + gate_bias) * gate_scale
    return a + gate * c, weights.mean(dim=1)


def selective_scan(*inputs: Tensor, height: int, width: int) -> Tensor:
    """The composite's inside: edge.reading.ops.reference_scan.selective_scan_f32 on x, delta, a, b, c, d, in float32.

    The recurrence s_t = p_t s_(t-1) + u_t is associative in the pairs (p, u), so log2(n) shifts compute it without a
    loop over tokens (Hillis & Steele 1986; Blelloch 1990, section 1.4; used for this scan in arXiv 2208.04933, 2.2).
    """
    x, delta, a, b, c, d = inputs
    x, delta, b, c = (_columns_last_two(t, height, width) for t in (x, delta, b, c))
    decay = torch.exp(delta[..., None] * a[:, None])
    drive = (delta * x)[..., None] * b[:, :, None]
    if height * width == 1:  # the state before the first token is zero; an input that nothing reads is dropped
        drive = drive + decay * 0.0
    forward = _prefixes(decay[0::2], drive[0::2], backward=False)
    backward = _prefixes(decay[1::2], drive[1::2], backward=True)
    state = torch.stack([forward, backward], dim=1).flatten(0, 1)
    y = (state * c[:, :, None]).sum(dim=-1) + d[:, None] * x
    return _columns_last_two(y, width, height).sum(dim=0) * (1.0 / DIRECTIONS)


def _columns_last_two(t: Tensor, height: int, width: int) -> Tensor:
    """(4, height * width, k) -> the same with the tokens of directions 2 and 3 numbered down the columns."""
    k = t.shape[-1]
    columns = t[2:].reshape(2, height, width, k).transpose(1, 2).reshape(2, height * width, k)
    return torch.cat([t[:2], columns])


def _prefixes(decay: Tensor, drive: Tensor, *, backward: bool) -> Tensor:
    """(2, n, channels, states): the state after every token, first to last or (backward) last to first."""
    tokens, step = decay.shape[1], 1
    while step < tokens:
        first, rest, before = slice(None, step), slice(step, None), slice(None, -step)
        if backward:
            first, rest, before = slice(-step, None), before, rest
        parts = [drive[:, first], drive[:, rest] + decay[:, rest] * drive[:, before]]
        factors = [decay[:, first], decay[:, rest] * decay[:, before]]
        drive, decay = (torch.cat(p[::-1] if backward else p, dim=1) for p in (parts, factors))
        step *= 2
    return drive


class GatedCrossAttention(nn.Module):
    """One composite and nothing else; `attention` adds the averaged softmax as a second output."""

    def __init__(self, heads: int, *, attention: bool = False, marked: bool = True) -> None:
        super().__init__()
        self.heads, self.attention, self.marked = heads, attention, marked

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """a, query, keys, values, gate_weight, gate_bias, gate_scale[, bias], as `gated_cross_attention`."""

        def inside(*t: Tensor) -> tuple[Tensor, ...]:
            outputs = gated_cross_attention(*t, heads=self.heads)
            return outputs if self.attention else outputs[:1]

        attributes = {"version": COMPOSITE_VERSION, "heads": self.heads, "gate": GATE, "bias": len(inputs) == 8}
        outputs = boxed(CROSS_ATTENTION, attributes, inside, inputs) if self.marked else inside(*inputs)
        return outputs if self.attention else outputs[0]


class SelectiveScan(nn.Module):
    """One composite and nothing else: x, delta, a, b, c, d -> (height * width, channels)."""

    def __init__(self, height: int, width: int, *, marked: bool = True) -> None:
        super().__init__()
        self.height, self.width, self.marked = height, width, marked

    def forward(self, *inputs: Tensor) -> Tensor:
        """As `selective_scan`."""

        def inside(*t: Tensor) -> tuple[Tensor, ...]:
            return (selective_scan(*t, height=self.height, width=self.width),)

        sizes = {"directions": DIRECTIONS, "height": self.height, "width": self.width}
        attributes = {"version": COMPOSITE_VERSION, **sizes}
        return (boxed(SELECTIVE_SCAN, attributes, inside, inputs) if self.marked else inside(*inputs))[0]


def boxed(
    name: str, attributes: dict[str, Any], inside: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """`inside(*inputs)`, marked as one composite. An input that `inside` does not read is dropped by the converter."""
    box = StableHLOCompositeBuilder(name, attributes)
    outputs = box.mark_outputs(*inside(*box.mark_inputs(*inputs)))
    return outputs if isinstance(outputs, tuple) else (outputs,)


class Chain(nn.Module):
    """Two composites one after the other: the first one's y is the second one's a."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.cross = GatedCrossAttention(heads)

    def forward(self, a: Tensor, *others: Tensor) -> Tensor:
        """As `gated_cross_attention`."""
        return self.cross(self.cross(a, *others), *others)


class CrossLayer(nn.Module):
    """The cross half of models.model.DecoderLayer: y = x + W_o(a + g c), query and [K | V] projected here."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.gate_weight = nn.Parameter(torch.randn(width) * 0.3)
        self.gate_bias, self.gate_scale = nn.Parameter(torch.randn(1)), nn.Parameter(torch.ones(1))
        self.cross = GatedCrossAttention(heads)

    def forward(self, x: Tensor, visual: Tensor, bias: Tensor) -> Tensor:
        """x: (1, T, d); visual: (1, S, d); bias: (1, S)."""
        keys, values = self.kv(visual).chunk(2, dim=-1)
        gate = (self.gate_weight * 1.0, self.gate_bias * 1.0, self.gate_scale * 1.0)
        return x + self.out(self.cross(x, self.q(x), keys, values, *gate, bias))


@dataclass(frozen=True)
class Fixture:
    """One file: its name says kind and sizes; `shapes` are those of its inputs in order."""

    name: str
    module: nn.Module
    shapes: tuple[tuple[int, ...], ...]


def cross_fixture(
    rows: int, tokens: int, width: int, heads: int, *, bias: bool, attention: bool = False, marked: bool = True
) -> Fixture:
    """A file with one gated cross-attention: T = rows, S = tokens, d = width."""
    name = f"cross_t{rows}_s{tokens}_d{width}_h{heads}" + "_bias" * bias + "_attention" * attention
    module = GatedCrossAttention(heads, attention=attention, marked=marked)
    return Fixture(name + "_plain" * (not marked), module, _cross_shapes(rows, tokens, width, bias=bias))


def _cross_shapes(rows: int, tokens: int, width: int, *, bias: bool) -> tuple[tuple[int, ...], ...]:
    shapes = [(1, rows, width)] * 2 + [(1, tokens, width)] * 2 + [(width,), (1,), (1,)] + [(1, tokens)] * bias
    return tuple(shapes)


def scan_fixture(height: int, width: int, channels: int, states: int, *, marked: bool = True) -> Fixture:
    """A file with one selective scan of a grid."""
    n = height * width
    shapes = ((4, n, channels), (4, n, channels), (4, channels, states), (4, n, states), (4, n, states), (4, channels))
    name = f"scan_h{height}_w{width}_c{channels}_n{states}" + "_plain" * (not marked)
    return Fixture(name, SelectiveScan(height, width, marked=marked), shapes)


def fixtures() -> Sequence[Fixture]:
    """What tests/fixtures/composites holds: odd sizes, one token, and the shapes of tools/custom_op_bench.

    `plain` files hold the same operators without a composite around them, for the benchmark.
    """
    torch.manual_seed(0)
    small = (
        cross_fixture(1, 1, 1, 1, bias=False),
        cross_fixture(3, 5, 15, 5, bias=True, attention=True),
        cross_fixture(2, 7, 33, 3, bias=True),
        Fixture("chain_t2_s7_d33_h3_bias", Chain(3), _cross_shapes(2, 7, 33, bias=True)),
        Fixture("layer_t4_s49_d32_h4", CrossLayer(32, 4), ((1, 4, 32), (1, 49, 32), (1, 49))),
        scan_fixture(1, 1, 1, 1),
        scan_fixture(1, 7, 3, 2),
        scan_fixture(5, 3, 17, 16),
    )
    real = [cross_fixture(1, s, d, h, bias=True, marked=m) for m in (True, False) for s, d, h in REAL_ATTENTIONS]
    return (*small, *real, *(scan_fixture(16, 16, 128, 16, marked=m) for m in (True, False)))


def write(fixture: Fixture, folder: Path) -> Path:
    """Convert and save; a module with weights saves them beside it, so that numpy can compute the same."""
    import litert_torch

    path = folder / f"{fixture.name}.tflite"
    example = tuple(torch.zeros(shape) for shape in fixture.shapes)
    litert_torch.convert(fixture.module.eval(), example).export(str(path))
    weights = {name: value.numpy() for name, value in fixture.module.state_dict().items()}
    if weights:
        np.savez(folder / f"{fixture.name}.npz", **weights)
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for fixture in fixtures():
        print(f"{write(fixture, folder)}")


if __name__ == "__main__":
    main()
