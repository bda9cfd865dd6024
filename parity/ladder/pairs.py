"""What the ladder is climbed with: this project's two models, at sizes at which every rung takes seconds."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from parity.ladder import base_file

Nested = dict[str, Any]

# All of the loss that can differ, unequal shifts (they are easily swapped), a last batch that is not full.
_TRAINING = {
    "dropout_masks": "shared",
    "batch_size": 12,
    "l2": 1e-4,
    "label_smoothing": 0.1,
    "class_weights": [0.8, 1.3],
}
_AUGMENT = {"width_shift": 0.1, "height_shift": 0.2}
SETUPS: dict[str, Nested] = {
    "cnn": {
        "augment": _AUGMENT,
        "model": {"name": "cnn", "filters": [8, 16], "dense_units": 32, "initial_biases": "uniform"},
        "training": _TRAINING,
    },
    "vgg16": {
        "augment": _AUGMENT,
        "model": {
            "name": "vgg16",
            "weights": "random",
            "dense_units": 32,
            "fine_tune_blocks": 1,
            "initial_biases": "uniform",
        },
        "training": _TRAINING,
    },
    "resnet50": {
        "augment": _AUGMENT,
        "model": {
            "name": "resnet50",
            "dense_units": 32,
            "initial_biases": "uniform",
        },
        "training": _TRAINING,
    },
}
STEPS = 8


def setup(pair: str, photos: str, cache: str, precision: str) -> Nested:
    """The configuration of one pair on the photographs of `parity.ladder.photos`, as nested values."""
    values = deepcopy(SETUPS[pair])
    values["data"] = {"name": "npz", "root": photos, "cache": cache}
    values["training"]["precision"] = precision
    if pair == "resnet50":
        # Glorot's weights would give large features, with which probabilities saturate: Keras then clips the
        # loss on JAX and torch, and not on TensorFlow.
        values["model"]["weights"] = str(base_file.write(Path(photos).with_name("resnet50.h5")))
        # A bias before a BatchNorm has no gradient but rounding, which Adam turns into whole steps: no two
        # correct trainings of such a block agree in float32.
        values["model"]["fine_tune_blocks"] = 1 if precision == "float64" else 0
    return values
