"""Augmentation on whole batches, on whatever device they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2

from experiment import randomness
from experiment.config import Augment


class KerasAugment(v2.Transform):
    """ImageDataGenerator's random rotation, shift, zoom and flip, one draw an image.

    Takes float images (N, C, H, W) or (C, H, W), square, on any scale. The draws come from `generator`
    where it is set, else from a generator seeded by torch's own, so that `torch.manual_seed` repeats them.
    """

    def __init__(self, config: Augment) -> None:
        super().__init__()
        self.config = config
        self.generator: np.random.Generator | None = None
        self.place: tuple[int, ...] = ()  # of several processes: where the images stand in the batch

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        images = next(item for item in flat_inputs if isinstance(item, Tensor))
        generator = self.generator or np.random.default_rng(int(torch.randint(2**31, ()).item()))
        count = images.shape[0] if images.dim() == 4 else 1
        start, drawn = self.place or (0, count)
        parameters = randomness.augmentation(generator, drawn, self.config, images.shape[-1])
        matrices = randomness.affine_matrices(parameters, images.shape[-1])
        return {"matrices": matrices[start : start + count]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if inpt.dim() == 3:
            return affine(inpt[None], params["matrices"])[0]
        return affine(inpt, params["matrices"])


def affine(images: Tensor, matrices: np.ndarray) -> Tensor:
    """Resample images bilinearly, edge pixels repeated.

    images: float (N, C, S, S). matrices: (N, 2, 3) of `experiment.randomness.affine_matrices`, pixels.
    """
    return resample(images, torch.from_numpy(sampling(matrices, images.shape[-1])).to(images))


def sampling(matrices: np.ndarray, size: int) -> np.ndarray:
    """The matrices in affine_grid's coordinates: -1 and 1 are the image's edges (align_corners=False)."""
    linear = matrices[:, :, :2]
    offset = (2 * matrices[:, :, 2] + linear.sum(-1) * (size - 1) + 1) / size - 1
    return np.concatenate([linear, offset[:, :, None]], -1)


def resample(images: Tensor, theta: Tensor) -> Tensor:
    """`affine` under the matrices (N, 2, 3) of `sampling`, where the images are."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def build_augment(config: Augment) -> v2.Transform | None:
    """The augmentation that the configuration names, or None; see `PerImage` for `torchvision`."""
    if config.kind == "none":
        return None
    if config.kind == "keras":
        return KerasAugment(config)
    return PerImage(
        v2.Compose(
            [
                v2.RandomAffine(
                    config.rotation,
                    translate=(config.width_shift, config.height_shift),
                    scale=(1 - config.zoom, 1 + config.zoom),
                    interpolation=InterpolationMode.BILINEAR,
                ),
                v2.RandomHorizontalFlip(0.5 if config.horizontal_flip else 0.0),
            ]
        )
    )


class PerImage(v2.Transform):
    """Applies stock transforms to each image of a batch: a v2 transform draws once for all it is given."""

    def __init__(self, transform: v2.Transform) -> None:
        super().__init__()
        self.per_image = transform

    def forward(self, *inputs: Any) -> Any:
        return torch.stack([self.per_image(image) for image in inputs[0]])
