"""Train the encoder: findings, lungs, population and "is this a chest X-ray at all" in one network.

    python -m models.train CACHE_DIR WEIGHTS_TFLITE OUT_DIR [--epochs 12]

One epoch is one pass over the NIH training part; every batch holds a fixed share of each source, so no source is
drowned. Labels a source does not give are left out of the loss. Within each source positives and negatives of a
finding weigh the same, so "which source" says nothing about the class. Checkpoint after every epoch; a second start
goes on from it. Model selection: mean validation AUROC, on the averaged weights.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge.report.grammar import FINDINGS
from models import augment
from models.backbone import load_imagenet
from models.data import Source, load
from models.findings import UNKNOWN
from models.metrics import auroc
from models.model import GRID, Encoder

BATCH = {"nih": 12, "kermany": 8, "masks": 4, "phantom": 4, "negative": 6}
LEARNING_RATE, BACKBONE_SHARE, WEIGHT_DECAY, AVERAGE = 6e-4, 0.1, 0.02, 0.99
CONTEXT_DECAY = 0.5  # 448 inputs and few hundred images: strongly shrunk
LARGEST_WEIGHT = 8.0  # cap of a rare positive's weight
SMOOTHING = 0.04  # text-mined labels are wrong now and then
LOSS_WEIGHTS = {"findings": 1.0, "masks": 0.5, "chest": 0.4, "population": 0.1}


class Sampler:
    """Endless shuffled rows of one source, positives and negatives of `balance` alternating where given."""

    def __init__(self, source: Source, rng: np.random.Generator, balance: int | None = None) -> None:
        self.source, self.rng = source, rng
        rows = np.arange(len(source.images))
        groups = [rows] if balance is None else [rows[source.labels[:, balance] == v] for v in (0, 1)]
        self._streams = [self._stream(g) for g in groups]

    def _stream(self, rows: np.ndarray):  # type: ignore[no-untyped-def]
        while True:
            yield from self.rng.permutation(rows)

    def take(self, n: int) -> np.ndarray:
        return np.array([next(self._streams[i % len(self._streams)]) for i in range(n)])


class Mixer:
    """Draws one batch: images, labels, weights, child, chest, masks."""

    def __init__(self, cache: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.sources = {n: load(cache, n).part("train") for n in ("nih", "kermany", "masks", "ultrasound")}
        for name in ("phantom", "other"):
            if (cache / f"{name}.npz").exists():
                self.sources[name] = load(cache, name).part("train")
        pneumonia = FINDINGS.index("pneumonia")
        self.samplers = {n: Sampler(s, rng, pneumonia if n == "kermany" else None) for n, s in self.sources.items()}
        self.positive_weight = {n: _positive_weight(s) for n, s in self.sources.items()}
        self.positive_weight["kermany"][:] = 1.0  # the sampler balances it already
        self.steps = len(self.sources["nih"].images) // BATCH["nih"]

    def batch(self) -> dict[str, Tensor]:
        parts = [self._labelled(n, BATCH[n]) for n in ("nih", "kermany", "masks", "phantom") if n in self.sources]
        parts.append(self._negative(BATCH["negative"]))
        joined = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
        images, masks = augment.geometry(joined["images"], joined["masks"], self.generator)
        joined["images"] = augment.intensity(images, self.generator)
        assert masks is not None
        joined["masks"] = F.adaptive_avg_pool2d(masks, GRID)
        return joined

    def _labelled(self, name: str, n: int) -> dict[str, Tensor]:
        source, rows = self.sources[name], self.samplers[name].take(n)
        labels = torch.from_numpy(source.labels[rows].astype(np.float32))
        weight = torch.where(labels == 1, torch.from_numpy(self.positive_weight[name]), torch.ones(()))
        masks = torch.zeros(n, 3, 64, 64) if source.masks is None else _unit(source.masks[rows])
        return {
            "images": _signed(source.images[rows]),
            "labels": labels,
            "weights": torch.where(labels == UNKNOWN, torch.zeros(()), weight),
            "child": torch.from_numpy(source.child[rows].astype(np.float32)),
            "chest": torch.ones(n),
            "masks": masks,
            "has_masks": torch.full((n,), float(source.masks is not None)),
        }

    def _negative(self, n: int) -> dict[str, Tensor]:
        """Other body parts, ultrasound, and spoiled chest images, a third each."""
        third = n // 3
        other = self.sources.get("other", self.sources["ultrasound"])
        name = "other" if "other" in self.sources else "ultrasound"
        spoiled = [("nih", 1), ("kermany", n - 2 * third - 1)]
        images = [
            _signed(other.images[self.samplers[name].take(third)]),
            _signed(self.sources["ultrasound"].images[self.samplers["ultrasound"].take(third)]),
            *(
                augment.spoil(_signed(self.sources[s].images[self.samplers[s].take(k)]), self.generator)
                for s, k in spoiled
            ),
        ]
        unknown = torch.full((n, len(FINDINGS)), float(UNKNOWN))
        return {
            "images": torch.cat(images),
            "labels": unknown,
            "weights": torch.zeros_like(unknown),
            "child": torch.full((n,), float(UNKNOWN)),
            "chest": torch.zeros(n),
            "masks": torch.zeros(n, 3, 64, 64),
            "has_masks": torch.zeros(n),
        }


def losses(model: Encoder, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Masked, weighted binary cross-entropies."""
    out = model(batch["images"].contiguous(memory_format=torch.channels_last))
    target = batch["labels"].clamp_min(0) * (1 - 2 * SMOOTHING) + SMOOTHING
    weights = batch["weights"]
    per_label = F.binary_cross_entropy_with_logits(out.findings.float(), target, weight=weights, reduction="sum")
    known = (batch["child"] >= 0).float()
    child = F.binary_cross_entropy_with_logits(
        out.population.float()[:, 0], batch["child"].clamp_min(0), weight=known, reduction="sum"
    )
    pixel = F.binary_cross_entropy(out.masks.float(), batch["masks"], reduction="none").mean(dim=(1, 2, 3))
    return {
        "findings": per_label / weights.sum().clamp_min(1),
        "population": child / known.sum().clamp_min(1),
        "chest": F.binary_cross_entropy_with_logits(out.chest.float()[:, 0], batch["chest"]),
        "masks": (pixel * batch["has_masks"]).sum() / batch["has_masks"].sum().clamp_min(1),
    }


@torch.no_grad()
def predict(model: Encoder, images: np.ndarray, batch: int = 32) -> dict[str, np.ndarray]:
    """(N, 256, 256) uint8 -> every encoder output, float32."""
    model.eval()
    outputs = []
    for i in range(0, len(images), batch):
        x = _signed(images[i : i + batch]).contiguous(memory_format=torch.channels_last)
        outputs.append(model(x))
    return {k: torch.cat([getattr(o, k) for o in outputs]).float().numpy() for k in outputs[0]._fields}


def validate(model: Encoder, cache: Path) -> dict[str, float]:
    """AUROC per finding on NIH and of pneumonia on Kermany, validation part."""
    scores: dict[str, float] = {}
    for name in ("nih", "kermany"):
        part = load(cache, name).part("val")
        logits = predict(model, part.images)["findings"]
        for i, code in enumerate(FINDINGS):
            known = part.labels[:, i] != UNKNOWN
            if 4 <= (part.labels[known, i] == 1).sum() < known.sum():
                scores[f"{name}.{code}"] = auroc(part.labels[known, i], logits[known, i])
    return scores


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cache", "weights", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    train(options.cache, options.weights, options.out, options.epochs, options.seed)


def train(cache: Path, weights: Path, out: Path, epochs: int, seed: int) -> None:
    """See the module docstring."""
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    model = Encoder()
    load_imagenet(model.backbone, weights)
    torch.nn.init.zeros_(model.context_findings.weight)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mixer = Mixer(cache, seed + 1000 * _epochs_done(out / "last.pt"))  # a second start draws other batches
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE)
    )
    backbone = list(model.backbone.parameters())
    context = list(model.context_findings.parameters())
    heads = [p for n, p in model.named_parameters() if not n.startswith(("backbone.", "context_findings."))]
    groups = [
        {"params": backbone, "lr": LEARNING_RATE * BACKBONE_SHARE},
        {"params": heads, "lr": LEARNING_RATE},
        {"params": context, "lr": LEARNING_RATE, "weight_decay": CONTEXT_DECAY},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    total = epochs * mixer.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _rate(s, total))
    start, best = _resume(out / "last.pt", model, average, optimizer, schedule)
    for epoch in range(start, epochs):
        began, sums = time.monotonic(), dict.fromkeys(LOSS_WEIGHTS, 0.0)
        model.train()
        for _ in range(mixer.steps):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                parts = losses(model, mixer.batch())
            loss = sum(LOSS_WEIGHTS[k] * v for k, v in parts.items())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[union-attr]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            sums = {k: sums[k] + float(v.detach()) / mixer.steps for k, v in parts.items()}
        scores = validate(average.module, cache)
        mean = float(np.mean(list(scores.values())))
        print(
            f"epoch {epoch + 1} {time.monotonic() - began:.0f}s loss {_short(sums)} mean {mean:.4f} {_short(scores)}",
            flush=True,
        )
        if mean > best:
            best = mean
            torch.save(average.module.state_dict(), out / "encoder.pt")
        torch.save(
            {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(),
             "schedule": schedule.state_dict(), "epoch": epoch + 1, "best": best}, out / "last.pt",
        )  # fmt: skip


def _epochs_done(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["epoch"]) if path.exists() else 0


def _resume(path: Path, model, average, optimizer, schedule) -> tuple[int, float]:  # type: ignore[no-untyped-def]
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=True)
    for name, thing in (("model", model), ("average", average), ("optimizer", optimizer), ("schedule", schedule)):
        thing.load_state_dict(saved[name])
    return saved["epoch"], saved["best"]


def _rate(step: int, total: int) -> float:
    warm = 100
    return (
        min(1.0, step / warm)
        if step < warm
        else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
    )


def _positive_weight(source: Source) -> np.ndarray:
    positive = (source.labels == 1).sum(axis=0)
    negative = (source.labels == 0).sum(axis=0)
    return np.minimum(negative / np.maximum(positive, 1), LARGEST_WEIGHT).astype(np.float32)


def _signed(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0)[:, None]


def _unit(masks: np.ndarray) -> Tensor:
    return torch.from_numpy(masks.astype(np.float32) / 255.0)


def _short(values: dict[str, float]) -> str:
    return " ".join(f"{k}={v:.3f}" for k, v in values.items())


if __name__ == "__main__":
    main()
