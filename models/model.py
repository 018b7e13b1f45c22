"""The reader's network: pyramid encoder with spatial attention, and the hybrid decoder.

Shapes: B images, G = 16 grid cells a side, N = G*G tokens, C = 128 channels, V = 30 vocabulary, d = 128.
The decoder's equations are those of `edge/reading/ops/reference.py`, which is what the device runs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.report.grammar import FINDINGS
from models.backbone import Conv, MobileNetV2
from models.findings import VOCABULARY

GRID = 16
CHANNELS = 128


class Encoded(NamedTuple):
    """Everything the encoder says about an image; the bundle's output names, in this order."""

    tokens: Tensor  # (B, N, C)
    findings: Tensor  # (B, 14) logits
    population: Tensor  # (B, 1) logit, child above 0
    chest: Tensor  # (B, 1) logit, an upright frontal chest radiograph above 0
    masks: Tensor  # (B, 3, G, G) probabilities: right lung, left lung, mediastinum
    embedding: Tensor  # (B, C)
    maps: Tensor  # (B, 14, G, G) what each cell adds to the finding's logit, up to a constant


class Encoder(nn.Module):
    """MobileNetV2 -> feature pyramid at stride 16 (Lin et al., CVPR 2017) -> spatial attention -> heads.

    Spatial attention after CBAM (Woo et al., ECCV 2018, eq. 4) with the channel maximum replaced by a learned 1x1
    projection, so that the whole graph stays in int8 operations. The findings head is the sum of two linear parts: one
    on the mean token and one on the standardised means of the three backbone stages. The second keeps what ImageNet
    features know: alone and frozen they do as well on the validation part as the fine-tuned pyramid without them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MobileNetV2()
        self.lateral8 = nn.Conv2d(32, CHANNELS, 1)
        self.lateral16 = nn.Conv2d(96, CHANNELS, 1)
        self.lateral32 = nn.Conv2d(320, CHANNELS, 1)
        self.smooth = Conv(CHANNELS, CHANNELS, 3, groups=CHANNELS)
        self.mix = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.squeeze = nn.Conv2d(CHANNELS, 2, 1)
        self.attend = nn.Conv2d(2, 1, 7, padding=3)
        self.findings = nn.Linear(CHANNELS, len(FINDINGS))
        self.context = nn.Sequential(nn.BatchNorm1d(32 + 96 + 320, affine=False), nn.Dropout(0.3))
        self.context_findings = nn.Linear(32 + 96 + 320, len(FINDINGS), bias=False)
        self.population = nn.Linear(CHANNELS, 1)
        self.chest = nn.Sequential(nn.Linear(320, 32), nn.ReLU6(), nn.Linear(32, 1))
        self.mask_hidden = Conv(CHANNELS, 32, 3)
        self.mask_out = nn.Conv2d(32, 3, 1)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Encoded:
        """x: (B, 1, 256, 256) in [-1, 1]."""
        c8, c16, c32 = self.backbone(x)
        top = F.interpolate(self.lateral32(c32), size=(GRID, GRID), mode="bilinear", align_corners=False)
        p = F.relu6(self.lateral16(c16) + top + self.lateral8(F.avg_pool2d(c8, 2)))
        p = F.relu6(self.mix(F.relu6(self.smooth(p))))
        masks = torch.sigmoid(self.mask_out(F.relu6(self.mask_hidden(p))))
        p = p * torch.sigmoid(self.attend(self.squeeze(p)))
        embedding = p.mean(dim=(2, 3))
        tokens = p.flatten(2).transpose(1, 2)
        means = [c.mean(dim=(2, 3)) for c in (c8, c16, c32)]
        findings = self.findings(self.drop(embedding)) + self.context_findings(self.context(torch.cat(means, dim=1)))
        maps = self._maps(p, c8, c16, c32)
        return Encoded(tokens, findings, self.population(embedding), self.chest(means[2]), masks, embedding, maps)

    def _maps(self, p: Tensor, c8: Tensor, c16: Tensor, c32: Tensor) -> Tensor:
        """Class-activation maps (Zhou et al., CVPR 2016, eq. 2) of both parts of the findings head together."""
        norm = self.context[0]
        context = self.context_findings.weight / torch.sqrt(norm.running_var + norm.eps)
        w8, w16, w32 = (w[:, :, None, None] for w in context.split((32, 96, 320), dim=1))
        far = F.interpolate(F.conv2d(c32, w32), size=(GRID, GRID), mode="bilinear", align_corners=False)
        near = F.conv2d(p, self.findings.weight[:, :, None, None]) + F.conv2d(c16, w16)
        return near + far + F.conv2d(F.avg_pool2d(c8, 2), w8)


class DecoderLayer(nn.Module):
    """Hybrid layer: self-attention and gated cross-attention that share the query (EMRRG, arXiv 2510.16776, fig. 2).

    y = x + W_o(a + g c), g = tanh(W_g a + b) w, w zero at the start; bias is added to the logits of visual keys.
    """

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.kv = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, 1)
        self.gate_scale = nn.Parameter(torch.zeros(1))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)

    def forward(self, x: Tensor, visual: Tensor, bias: Tensor) -> Tensor:
        """x: (B, T, d); visual: (B, N, d); bias: (B, N)."""
        h = self.norm1(x)
        q, k, v = (self._split(m(h)) for m in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        vk, vv = (self._split(t) for t in self.kv(self.norm1(visual)).chunk(2, dim=-1))
        c = F.scaled_dot_product_attention(q, vk, vv, attn_mask=bias[:, None, None, :])
        a, c = self._merge(a), self._merge(c)
        gate = torch.tanh(self.gate(a)) * self.gate_scale
        x = x + self.out(a + gate * c)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    def _split(self, t: Tensor) -> Tensor:
        b, n, d = t.shape
        return t.view(b, n, self.heads, d // self.heads).transpose(1, 2)

    def _merge(self, t: Tensor) -> Tensor:
        return t.transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    """Tokens of an image -> sequence of coded findings."""

    WIDTH, LAYERS, HEADS, FFN, POSITIONS = 128, 3, 4, 384, 64
    BIAS_SIGMA = (2.2, 1.1, 0.35)  # grid cells of the 16 x 16 grid, coarse to fine (arXiv 2512.16841, scaled)
    BIAS_STRENGTH = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.vis = nn.Linear(CHANNELS, self.WIDTH)
        self.embed = nn.Embedding(len(VOCABULARY), self.WIDTH)
        self.position = nn.Embedding(self.POSITIONS, self.WIDTH)
        self.layers = nn.ModuleList(DecoderLayer(self.WIDTH, self.HEADS, self.FFN) for _ in range(self.LAYERS))
        self.norm = nn.LayerNorm(self.WIDTH)
        self.head = nn.Linear(self.WIDTH, len(VOCABULARY))

    def forward(self, tokens: Tensor, masks: Tensor, sequence: Tensor) -> Tensor:
        """tokens: (B, N, C); masks: (B, 3, G, G); sequence: (B, T) int64 -> logits (B, T, V)."""
        visual = self.vis(tokens)
        x = self.embed(sequence) + self.position.weight[: sequence.shape[1]]
        for layer, sigma in zip(self.layers, self.BIAS_SIGMA, strict=True):
            x = layer(x, visual, anatomical_bias(masks, sigma) * self.BIAS_STRENGTH)
        return self.head(self.norm(x))


def anatomical_bias(masks: Tensor, sigma: float) -> Tensor:
    """(B, 3, G, G) -> (B, N) in [0, 1]: union of the masks, blurred with reflect padding, min-max to [0, 1]."""
    union = _minmax(masks.amax(dim=1, keepdim=True))
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=union.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    blurred = F.conv2d(F.pad(union, (radius, radius, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    blurred = F.conv2d(F.pad(blurred, (0, 0, radius, radius), mode="reflect"), kernel.view(1, 1, -1, 1))
    return _minmax(blurred).flatten(1)


def _minmax(x: Tensor) -> Tensor:
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    return (x - low) / (high - low).clamp_min(1e-6)
