"""Train the decoder on finding sequences, over the tokens of the frozen encoder.

    python -m models.train_decoder CACHE_DIR RUN_DIR [--steps 1500]

Real images give findings but no side or zone: those positions carry a random allowed word as input and no loss.
Phantoms give side and zone. Certainty is `present` where the frozen classifier is more sure than not. Sequences are
sampled so that rare findings are seen as often as common ones; afterwards the bias of `normal` and `<eos>` is moved
so that, on the validation part, writing and not writing a finding are balanced (largest mean Youden index).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge.report.grammar import FINDINGS, CodedFinding, Grammar
from edge.report.graph import load_graph
from edge.report.schema import Certainty, Side, Zone
from models import augment
from models.data import Source, load
from models.findings import SIDES, VOCABULARY, ZONES
from models.model import Decoder, Encoder
from models.train import _signed, predict

VIEWS = {"nih": 4, "kermany": 1, "phantom": 2}  # augmented copies of each training image
BATCH, LEARNING_RATE, IGNORED = 48, 8e-4, -100
BIAS_GRID = np.arange(-1.0, 3.01, 0.5)
MOST_VALIDATION = 256  # images of each source: greedy decoding of one part for every shift


@dataclass
class Examples:
    """tokens (M, 256, 128), masks (M, 3, 16, 16) float16; logits, labels (M, 14); side, zone (M,) or -1."""

    tokens: np.ndarray
    masks: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    side: np.ndarray
    zone: np.ndarray

    def first(self, n: int) -> Examples:
        """The first `n` examples."""
        return Examples(*(getattr(self, f.name)[:n] for f in fields(self)))


def encode(encoder: Encoder, cache: Path, name: str, split: str, copies: int, seed: int) -> Examples:
    """Every image of the part, `copies` times with random changes (0: once, unchanged)."""
    source = load(cache, name).part(split)
    extra = dict.fromkeys(("side", "zone"), np.full(len(source.images), -1))
    if name == "phantom":
        with np.load(cache / "phantom.npz") as arrays:
            rows = arrays["split"] == split
            extra = {k: arrays[k][rows] for k in extra}
    rounds = [source.images] if not copies else [_changed(source, seed + i) for i in range(copies)]
    outputs = [predict(encoder, images) for images in rounds]
    n = len(rounds)
    return Examples(
        np.concatenate([o["tokens"].astype(np.float16) for o in outputs]),
        np.concatenate([o["masks"].astype(np.float16) for o in outputs]),
        np.concatenate([o["findings"] for o in outputs]),
        np.tile(source.labels, (n, 1)), np.tile(extra["side"], n), np.tile(extra["zone"], n),
    )  # fmt: skip


def _changed(source: Source, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(0, len(source.images), 64):
        images, _ = augment.geometry(_signed(source.images[i : i + 64]), None, generator)
        out.append(((augment.intensity(images, generator)[:, 0] + 1) * 127.5).round().byte().numpy())
    return np.concatenate(out)


class Sequences:
    """Examples -> token sequences with targets."""

    def __init__(self, parts: list[Examples], rng: np.random.Generator) -> None:
        keys = ("tokens", "masks", "logits", "labels", "side", "zone")
        self.all = Examples(*(np.concatenate([getattr(p, k) for p in parts]) for k in keys))
        self.rng = rng
        self.grammar = Grammar(VOCABULARY, FINDINGS, load_graph())
        self.graph = load_graph()
        positive = self.all.labels == 1
        frequency = np.maximum(positive.sum(axis=0), 1)
        weight = np.where(positive, 1.0 / frequency, 0.0).max(axis=1)
        weight[~positive.any(axis=1)] = 4.0 / (~positive.any(axis=1)).sum()
        self.probability = weight / weight.sum()

    def batch(self, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tokens, masks, input sequence (n, T), target (n, T) with IGNORED where nothing is known."""
        rows = self.rng.choice(len(self.probability), n, p=self.probability)
        pairs = [self._sequence(int(r)) for r in rows]
        length = max(len(s) for s, _ in pairs)
        inputs = torch.zeros(n, length - 1, dtype=torch.long)
        targets = torch.full((n, length - 1), IGNORED)
        for i, (sequence, known) in enumerate(pairs):
            inputs[i, : len(sequence) - 1] = torch.tensor(sequence[:-1])
            targets[i, : len(sequence) - 1] = torch.tensor(
                [t if k else IGNORED for t, k in zip(sequence[1:], known[1:], strict=True)]
            )
        tokens = torch.from_numpy(self.all.tokens[rows].astype(np.float32))
        masks = torch.from_numpy(self.all.masks[rows].astype(np.float32))
        return tokens, masks, inputs, targets

    def _sequence(self, row: int) -> tuple[list[int], list[bool]]:
        coded, known = [], [True]
        for i in np.flatnonzero(self.all.labels[row] == 1):
            node = self.graph.statable(FINDINGS[i])
            told = self.all.side[row] >= 0
            side = SIDES[self.all.side[row]] if told else str(self.rng.choice(node.sides))
            zone = ZONES[self.all.zone[row]] if told else str(self.rng.choice(node.zones))
            certainty = "present" if self.all.logits[row, i] > 0 else "possible"
            words = (cast(Side, side), cast(Zone, zone), cast(Certainty, certainty))
            coded.append(CodedFinding(FINDINGS[i], *words))
            known += [True, told or len(node.sides) == 1, told or len(node.zones) == 1, True]
        sequence = self.grammar.encode(coded)
        return list(sequence), known + [True] * (len(sequence) - len(known))


def fit(sequences: Sequences, steps: int, seed: int) -> Decoder:
    """Teacher forcing, AdamW, cosine rate; the gates' scalars learn ten times faster since they start at zero."""
    torch.manual_seed(seed)
    decoder = Decoder()
    gates = [p for n, p in decoder.named_parameters() if n.endswith("gate_scale")]
    rest = [p for n, p in decoder.named_parameters() if not n.endswith("gate_scale")]
    groups = [{"params": rest, "lr": LEARNING_RATE}, {"params": gates, "lr": LEARNING_RATE * 10, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [LEARNING_RATE, LEARNING_RATE * 10], total_steps=steps, pct_start=0.1
    )
    mean = 0.0
    for step in range(steps):
        tokens, masks, inputs, targets = sequences.batch(BATCH)
        tokens = tokens + 0.05 * tokens.std() * torch.randn_like(tokens)
        logits = decoder(tokens, masks, inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, label_smoothing=0.02)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = 0.98 * mean + 0.02 * float(loss.detach())
        if (step + 1) % 250 == 0:
            scales = [round(float(layer.gate_scale.detach()), 3) for layer in decoder.layers]  # type: ignore[union-attr, arg-type]
            print(f"step {step + 1} loss {mean / (1 - 0.98 ** (step + 1)):.3f} gates {scales}", flush=True)
    return decoder.eval()


@torch.no_grad()
def written(decoder: Decoder, part: Examples, grammar: Grammar) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy decoding of a part: said (M, 14) bool, side (M, 14) and zone (M, 14) indices or -1."""
    said = np.zeros((len(part.tokens), len(FINDINGS)), bool)
    side, zone = np.full(said.shape, -1), np.full(said.shape, -1)
    for start in range(0, len(part.tokens), 64):
        tokens = torch.from_numpy(part.tokens[start : start + 64].astype(np.float32))
        masks = torch.from_numpy(part.masks[start : start + 64].astype(np.float32))
        prefixes = [[1] for _ in range(len(tokens))]
        while any(p[-1] != 2 for p in prefixes):
            length = max(len(p) for p in prefixes)
            batch = torch.tensor([p + [0] * (length - len(p)) for p in prefixes])
            logits = decoder(tokens, masks, batch)
            for i, prefix in enumerate(prefixes):
                if prefix[-1] != 2:
                    allowed = torch.from_numpy(grammar.allowed(prefix))
                    prefix.append(int(logits[i, len(prefix) - 1].masked_fill(~allowed, -1e9).argmax()))
        for i, prefix in enumerate(prefixes):
            for coded in grammar.parse(prefix):
                column = FINDINGS.index(coded.finding)
                said[start + i, column] = True
                side[start + i, column] = SIDES.index(coded.side)
                zone[start + i, column] = ZONES.index(coded.zone)
    return said, side, zone


def youden(said: np.ndarray, labels: np.ndarray) -> float:
    """Mean over findings with at least 4 positives of sensitivity + specificity - 1; unknown labels left out."""
    values = []
    for i in range(labels.shape[1]):
        positive, negative = labels[:, i] == 1, labels[:, i] == 0
        if positive.sum() >= 4 and negative.sum() >= 4:
            values.append(said[positive, i].mean() - said[negative, i].mean())
    return float(np.mean(values))


def balance(decoder: Decoder, val: list[Examples], grammar: Grammar) -> float:
    """Move the bias of `normal` and `<eos>`; returns the shift that was best on the validation parts."""
    stops = [VOCABULARY.index("normal"), VOCABULARY.index("<eos>")]
    original = decoder.head.bias.detach().clone()
    scores = []
    for shift in BIAS_GRID:
        decoder.head.bias.data = original.clone()
        decoder.head.bias.data[stops] -= float(shift)
        scores.append(np.mean([youden(written(decoder, part, grammar)[0], part.labels) for part in val]))
    best = float(BIAS_GRID[int(np.argmax(scores))])
    decoder.head.bias.data = original
    decoder.head.bias.data[stops] -= best
    print("shift", best, "mean Youden index", round(float(max(scores)), 3), "before", round(float(scores[2]), 3))
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cache", "run"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    encoder = Encoder()
    encoder.load_state_dict(torch.load(options.run / "encoder.pt", weights_only=True))
    parts = [encode(encoder, options.cache, n, "train", v, options.seed) for n, v in VIEWS.items()]
    sequences = Sequences(parts, np.random.default_rng(options.seed))
    decoder = fit(sequences, options.steps, options.seed)
    val = {n: encode(encoder, options.cache, n, "val", 0, 0).first(MOST_VALIDATION) for n in VIEWS}
    balance(decoder, [val["nih"], val["kermany"], val["phantom"]], sequences.grammar)
    for name, part in val.items():
        said, side, zone = written(decoder, part, sequences.grammar)
        rate = said.sum() / len(said)
        print(f"{name} val: Youden index {youden(said, part.labels):.3f}, {rate:.2f} findings written an image")
        if name == "phantom":
            rows, columns = np.nonzero(said & (part.labels == 1))
            pairs = ((side, part.side), (zone, part.zone))
            right = [float((told[rows, columns] == true[rows]).mean()) for told, true in pairs]
            print(f"phantom val: side right {right[0]:.3f}, zone right {right[1]:.3f} of {len(rows)}")
    torch.save(decoder.state_dict(), options.run / "decoder.pt")


if __name__ == "__main__":
    main()
