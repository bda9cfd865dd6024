"""How far `augment.kind: torchvision` is from ImageDataGenerator: the same settings, other pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiment import randomness
from experiment.config import Augment
from experiment.protocols.augmentation import Request
from experiment.randomness import GEOMETRY, Parameters
from parity.ladder.augmentation import answer

SETTINGS = Augment(kind="torchvision")  # the configuration's own defaults, for both
DRAWS = 20_000


def measure(images: np.ndarray, folder: Path, repeats: int = 16) -> dict[str, dict[str, float]]:
    """Both augmentations at the same settings, in numbers; pixels are shares of the range 0..255.

    images: uint8 (N, S, S, 3), each augmented `repeats` times. `difference` compares two pictures made from
    the same numbers, as they stand, and turned into what torchvision would have to be given. `keras`,
    `keras_again` (other draws: what chance alone makes) and `torchvision` each hold the share of the picture
    that is filled with black, the share of pictures that have any, the spread of zx / zy (standard deviation
    of its logarithm), the mean magnification, the share of shifts by whole pixels, and the pixels' mean and
    standard deviation. Raises SideError where the Lightning side fails.
    """
    images = np.tile(images, (repeats, 1, 1, 1)).astype(np.float64)
    count, size = len(images), images.shape[1]
    first, second = (_drawn(count, size, position) for position in (0, 1))
    white = np.full_like(images, 255)
    parts = [(images, first), (images, turned(first)), (images, second), (white, first), (white, second)]
    parameters = {name: np.concatenate([one[name] for _, one in parts]) for name in GEOMETRY}
    asked = Request(np.concatenate([one for one, _ in parts]), parameters, SETTINGS, DRAWS)
    given = answer("lightning", asked, folder, "cpu")
    # This project's pixels are ImageDataGenerator's: the augmentation rung.
    keras, _, again, keras_white, again_white = np.split(given["pixels"] / 255, len(parts))
    same, best, _, stock_white, _ = np.split(given["stock"] / 255, len(parts))
    ours, others = (_drawn(DRAWS, size, position) for position in (2, 3))
    theirs = {name: given[f"drawn_{name}"] for name in GEOMETRY}
    return {
        "difference": {
            "same numbers, mean": float(np.abs(same - keras).mean()),
            "same numbers, largest": float(np.abs(same - keras).max()),
            "numbers turned, mean": float(np.abs(best - keras).mean()),
            "numbers turned, largest": float(np.abs(best - keras).max()),
        },
        "keras": _statistics(keras, keras_white, ours, 1 / ours["zx"]),
        "keras_again": _statistics(again, again_white, others, 1 / others["zx"]),
        "torchvision": _statistics(same, stock_white, theirs, theirs["zx"]),
    }


def turned(parameters: Parameters) -> Parameters:
    """Parameters that make torchvision come as near to ImageDataGenerator as it can.

    It turns and shifts the other way, magnifies where Keras shrinks, by one factor, and shifts what is
    magnified already.
    """
    zoom = np.sqrt(parameters["zx"] * parameters["zy"])
    moved = {name: -parameters[name] / zoom for name in ("tx", "ty")}
    return {**parameters, **moved, "theta": -parameters["theta"], "zx": 1 / zoom, "zy": 1 / zoom}


def _drawn(count: int, size: int, position: int) -> Parameters:
    return randomness.augmentation(
        randomness.generator(1, "stock augmentation", position), count, SETTINGS, size
    )


def _statistics(
    pixels: np.ndarray, white: np.ndarray, drawn: Parameters, magnification: np.ndarray
) -> dict[str, float]:
    shifts = np.concatenate([drawn["tx"], drawn["ty"]])
    black = np.maximum(1 - white, 0)
    return {
        "filled with black": float(black.mean()),
        "pictures with black": float((black.max(axis=(1, 2, 3)) > 1e-9).mean()),
        "spread of zx / zy": float(np.log(drawn["zx"] / drawn["zy"]).std()),
        "magnification": float(magnification.mean()),
        "whole shifts": float((shifts == np.rint(shifts)).mean()),
        "mean": float(pixels.mean()),
        "standard deviation": float(pixels.std()),
    }
