"""Random changes that keep the label. Never a left-right flip: laterality is part of the report."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def geometry(images: Tensor, masks: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Same random affine map for images (B, 1, H, W) and masks (B, 3, h, w)."""
    b = len(images)
    u = torch.rand(b, 6, generator=generator) * 2 - 1
    angle, scale_x, scale_y = u[:, 0] * math.radians(8), 1 + 0.12 * u[:, 1], 1 + 0.12 * u[:, 2]
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = scale_x * angle.cos(), -scale_y * angle.sin() + 0.04 * u[:, 3]
    theta[:, 1, 0], theta[:, 1, 1] = scale_x * angle.sin(), scale_y * angle.cos()
    theta[:, :, 2] = 0.08 * u[:, 4:6]
    return _warp(images, theta, "border"), None if masks is None else _warp(masks, theta, "zeros")


def intensity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, contrast, noise, blur and a collimation edge; images (B, 1, H, W) in [-1, 1]."""
    b = len(images)
    u = torch.rand(b, 5, 1, 1, 1, generator=generator)
    x = ((images + 1) / 2).clamp(0, 1)
    x = x ** (2 ** ((u[:, 0] * 2 - 1) * 0.6))
    x = (x - 0.5) * (0.8 + 0.45 * u[:, 1]) + 0.5 + (u[:, 2] - 0.5) * 0.16
    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x = torch.where(u[:, 3] < 0.3, blurred, x)
    x = x + torch.randn(x.shape, generator=generator) * 0.03 * u[:, 4]
    return x.clamp(0, 1) * 2 - 1


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Chest images -> what is no readable chest image: turned, upside down, inverted, scrambled, a small part of it."""
    kinds = torch.randint(0, 6, (len(images),), generator=generator)
    return torch.stack([_spoil_one(image, int(kind), generator) for image, kind in zip(images, kinds, strict=True)])


def _spoil_one(image: Tensor, kind: int, generator: torch.Generator) -> Tensor:
    if kind == 0:
        return torch.rot90(image, 1 + 2 * int(torch.randint(0, 2, (1,), generator=generator)), (1, 2))
    if kind == 1:
        return image.flip(1)
    if kind == 2:
        return -image
    if kind == 3:
        parts = image.unfold(1, 64, 64).unfold(2, 64, 64).reshape(16, 64, 64)
        parts = parts[torch.randperm(16, generator=generator)].view(4, 4, 64, 64)
        return parts.permute(0, 2, 1, 3).reshape(1, 256, 256)
    if kind == 4:
        return torch.rot90(image, 2, (1, 2))
    y, x = torch.randint(0, 256 - 80, (2,), generator=generator).tolist()
    return F.interpolate(image[None, :, y : y + 80, x : x + 80], size=256, mode="bilinear")[0]


def _warp(x: Tensor, theta: Tensor, padding: str) -> Tensor:
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=False)
