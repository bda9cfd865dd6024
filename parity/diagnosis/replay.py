"""Augmentation computed anew, as Keras does it and as those do it who get one thing wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from experiment import randomness
from experiment.randomness import Parameters

if TYPE_CHECKING:
    from parity.traces.pair import Pair

CHANGES: dict[str, Callable[[Parameters], Parameters]] = {
    "the zoom runs the other way (factors above 1 zoom in)": lambda p: {"zx": 1 / p["zx"], "zy": 1 / p["zy"]},
    "both zooms are one (an isotropic scale)": lambda p: {"zy": p["zx"]},
    "the two shifts are swapped": lambda p: {"tx": p["ty"], "ty": p["tx"]},
    "the rotation runs the other way": lambda p: {"theta": -p["theta"]},
    "images are not flipped": lambda p: {"flip": np.zeros_like(p["flip"])},
}


def replayed(pair: Pair) -> Iterator[tuple[str, np.ndarray]]:
    """For each known mistake its name and the first batch's pixels under it: float64 (N, S, S, C)."""
    assert pair.experiment is not None
    images = pair.keras["data/epoch0/first"].astype(np.float64)
    size, augment = images.shape[1], pair.experiment.augment
    random = randomness.generator(pair.experiment.seed, "augment", 0, 0)
    drawn = randomness.augmentation(random, len(images), augment, size)
    factors = drawn.get("brightness")
    for cause, change in CHANGES.items():
        placed = resample(images, randomness.affine_matrices({**drawn, **change(drawn)}, size))
        yield cause, brightened(placed, factors)
    if factors is not None:
        placed = resample(images, randomness.affine_matrices(drawn, size))
        yield "the brightness is not shifted", placed
        yield (
            "the brightness is shifted before the affine map, not after",
            resample(brightened(images, factors), randomness.affine_matrices(drawn, size)),
        )
    unflipped = randomness.affine_matrices({**drawn, "flip": np.zeros_like(drawn["flip"])}, size)
    flipped = images.copy()
    flipped[drawn["flip"]] = flipped[drawn["flip"], :, ::-1]
    yield (
        "images are flipped before the affine map, not after",
        brightened(resample(flipped, unflipped), factors),
    )
    matrices = randomness.affine_matrices(drawn, size)
    yield (
        "what lies outside is filled with zeros (Keras repeats the edge)",
        brightened(resample(images, matrices, zeros=True), factors),
    )
    nearest = resample(images, matrices, order=0)
    yield "pixels are taken from the nearest one, not interpolated", brightened(nearest, factors)
    yield "images are not augmented", images


def brightened(images: np.ndarray, factors: np.ndarray | None) -> np.ndarray:
    """Images (N, S, S, C) times a factor each, in whole levels, as ImageDataGenerator has them."""
    if factors is None:
        return images
    levels = np.floor(images.astype(np.float32)) * factors.astype(np.float32)[:, None, None, None]
    return np.floor(np.clip(levels, 0, 255)).astype(images.dtype)


def resample(images: np.ndarray, matrices: np.ndarray, order: int = 1, zeros: bool = False) -> np.ndarray:
    """Images (N, S, S, C) seen through matrices (N, 2, 3) of `experiment.randomness.affine_matrices`.

    order: 1 is bilinear, 0 takes the nearest pixel. zeros: fill with zeros, blending into them over a pixel.
    """
    size = images.shape[1]
    row, column = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    outputs = np.stack([column.ravel(), row.ravel(), np.ones(size * size)])
    result = np.empty_like(images)
    for index, matrix in enumerate(matrices):
        x, y = matrix @ outputs
        for channel in range(images.shape[-1]):
            image, places = images[index, :, :, channel], np.stack([y, x])
            if zeros:
                # ndimage's own `constant` does not blend at the border: a rim of zeros makes it.
                image, places = np.pad(image, 1), places + 1
            seen = ndimage.map_coordinates(image, places, order=order, mode="nearest")
            result[index, :, :, channel] = seen.reshape(size, size)
    return result
