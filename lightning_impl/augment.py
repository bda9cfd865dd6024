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
    """ImageDataGenerator's random rotation, shift, zoom, flip and brightness, one draw an image.

    Takes float images (N, C, H, W) or (C, H, W), square, in 0..255 (without brightness on any scale). The
    draws come from `generator` where it is set, else from a generator seeded by torch's own, so that
    `torch.manual_seed` repeats them.
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
        return {name: values[start : start + count] for name, values in parameters.items()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return augment(inpt[None], params)[0] if inpt.dim() == 3 else augment(inpt, params)


def augment(images: Tensor, parameters: randomness.Parameters) -> Tensor:
    """Images placed, and then put through every step of `STEPS` that there are parameters for."""
    images = affine(images, randomness.affine_matrices(parameters, images.shape[-1]))
    for name, step in STEPS.items():
        images = step(images, parameters[name]) if name in parameters else images
    return images


def affine(images: Tensor, matrices: np.ndarray) -> Tensor:
    """Resample images bilinearly, edge pixels repeated.

    images: float (N, C, S, S). matrices: (N, 2, 3) of `experiment.randomness.affine_matrices`, pixels.
    """
    size, linear = images.shape[-1], matrices[:, :, :2]
    # In affine_grid's coordinates -1 and 1 are the image's edges (align_corners=False).
    offset = (2 * matrices[:, :, 2] + linear.sum(-1) * (size - 1) + 1) / size - 1
    theta = torch.from_numpy(np.concatenate([linear, offset[:, :, None]], -1)).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def brightness(images: Tensor, factors: np.ndarray) -> Tensor:
    """Multiply images by a factor each, as ImageDataGenerator does through PIL, in whole levels of 0..255.

    images: float (N, C, S, S). factors: (N,). keras legacy/preprocessing/image.py, apply_brightness_shift
    (scale=False), and Pillow's ImagingBlend: float32 pixels lose what is behind the point before they are
    multiplied, and again after.
    """
    levels = torch.floor(settled(images).clamp(0, 255))
    by = torch.from_numpy(factors.astype(np.float32)).to(images.device)[:, None, None, None]
    return torch.floor((levels * by).clamp(0, 255)).to(images.dtype)


def settled(images: Tensor) -> Tensor:
    """Pixels in float32 without the rounding of the affine map, so that a whole level is one again.

    ImageDataGenerator's own are float32, rounded from float64: as float64's here. Float32 positions leave
    errors of up to 3e-4 levels, which 1024ths of a level take up.
    """
    return images.float() if images.dtype == torch.float64 else torch.round(images.float() * 1024) / 1024


STEPS = {"brightness": brightness}  # after the affine map and flip, in this order, by parameter


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
