"""Keras's random image layers: they act in training alone, each image by a draw of its own.

Images are (N, C, H, W). The draws have the distributions of Keras's, not its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Factor = float | Sequence[float]
FILLED = {"reflect": "reflection", "nearest": "border", "constant": "zeros"}


def _bounds(factor: Factor) -> tuple[float, float]:
    """From -factor to factor, or the two bounds that are given."""
    if isinstance(factor, int | float):
        return -abs(factor), abs(factor)
    low, high = sorted(factor)
    return low, high


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """A number for each image."""
    return torch.empty(images.shape[0], dtype=images.dtype, device=images.device).uniform_(low, high)


def affine(images: Tensor, matrices: Tensor, fill_mode: str, fill_value: float) -> Tensor:
    """Images resampled, bilinear: output pixel (x, y) shows input pixel matrix @ (x, y, 1), by (N, 2, 3)."""
    height, width = images.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=images.dtype, device=images.device),
        torch.arange(width, dtype=images.dtype, device=images.device),
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ matrices.mT[:, None]
    sizes = torch.tensor([width, height], dtype=images.dtype, device=images.device)
    grid = (2 * pixels + 1) / sizes - 1
    moved = F.grid_sample(
        images - fill_value, grid, mode="bilinear", padding_mode=FILLED[fill_mode], align_corners=False
    )
    return moved + fill_value


class RandomFlip(nn.Module):
    """Mirrors half of the images: `horizontal`, `vertical`, or both at once.

    Keras flips by one draw in both directions: horizontal_and_vertical turns an image by half a turn.
    """

    def __init__(self, mode: str = "horizontal_and_vertical") -> None:
        super().__init__()
        self.dims = [dim for dim, word in ((-1, "horizontal"), (-2, "vertical")) if word in mode]

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        flips = torch.rand(images.shape[0], 1, 1, 1, device=images.device) <= 0.5
        return torch.where(flips, images.flip(self.dims), images)


class RandomRotation(nn.Module):
    """Turns each image about its centre by a share of a full turn, between -factor and factor."""

    def __init__(self, factor: Factor, fill_mode: str = "reflect", fill_value: float = 0.0) -> None:
        super().__init__()
        self.bounds, self.fill_mode, self.fill_value = _bounds(factor), fill_mode, fill_value

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        angle = 2 * math.pi * _uniform(images, *self.bounds)
        cos, sin = angle.cos(), angle.sin()
        x, y = (images.shape[3] - 1) / 2, (images.shape[2] - 1) / 2
        rows = [cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos]
        matrices = torch.stack(rows, dim=1).view(-1, 2, 3)
        return affine(images, matrices, self.fill_mode, self.fill_value)


class RandomTranslation(nn.Module):
    """Shifts each image by shares of its height (downwards) and width (to the right)."""

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor,
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
    ) -> None:
        super().__init__()
        self.height, self.width = _bounds(height_factor), _bounds(width_factor)
        self.fill_mode, self.fill_value = fill_mode, fill_value

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        down = images.shape[2] * _uniform(images, *self.height)
        right = images.shape[3] * _uniform(images, *self.width)
        one, zero = torch.ones_like(down), torch.zeros_like(down)
        matrices = torch.stack([one, zero, -right, zero, one, -down], dim=1).view(-1, 2, 3)
        return affine(images, matrices, self.fill_mode, self.fill_value)


class RandomZoom(nn.Module):
    """Zooms each image about its centre by 1 + factor, above one out; without a width factor both ways
    alike."""

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor | None = None,
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
    ) -> None:
        super().__init__()
        self.height = _bounds(height_factor)
        self.width = None if width_factor is None else _bounds(width_factor)
        self.fill_mode, self.fill_value = fill_mode, fill_value

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        zy = 1 + _uniform(images, *self.height)
        zx = zy if self.width is None else 1 + _uniform(images, *self.width)
        x, y = (images.shape[3] - 1) / 2 * (1 - zx), (images.shape[2] - 1) / 2 * (1 - zy)
        zero = torch.zeros_like(zx)
        matrices = torch.stack([zx, zero, x, zero, zy, y], dim=1).view(-1, 2, 3)
        return affine(images, matrices, self.fill_mode, self.fill_value)


class RandomContrast(nn.Module):
    """Scales each image's distance from its channels' means by 1 - lower to 1 + upper, then clips it.

    factor: (lower, upper), or upper alone with a lower of zero: Keras 3 then raises the contrast and never
    lowers it.
    """

    def __init__(self, factor: Factor, value_range: Sequence[float] = (0, 255)) -> None:
        super().__init__()
        lower, upper = (0.0, factor) if isinstance(factor, int | float) else factor
        self.bounds, self.value_range = (1 - lower, 1 + upper), value_range

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        mean = images.mean((2, 3), keepdim=True)
        scale = _uniform(images, *self.bounds).view(-1, 1, 1, 1)
        return ((images - mean) * scale + mean).clamp(*self.value_range)


class RandomBrightness(nn.Module):
    """Adds to each image a share of the range of its values, then clips it."""

    def __init__(self, factor: Factor, value_range: Sequence[float] = (0, 255)) -> None:
        super().__init__()
        self.bounds, self.value_range = _bounds(factor), value_range

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        low, high = self.value_range
        added = (high - low) * _uniform(images, *self.bounds).view(-1, 1, 1, 1)
        return (images + added).clamp(low, high)
