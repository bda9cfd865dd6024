"""What the ladder is climbed with: this project's models, at sizes at which every rung takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiment.backbones import BACKBONES
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


def _base(weights: str | None = None) -> Nested:
    """A base with a head; weights: None gives it those of `parity.ladder.base_file`."""
    return {"weights": weights, "dense_units": 32, "initial_biases": "uniform"}


# The model of each pair, by the name of the model.
MODELS: dict[str, Nested] = {
    "cnn": {"filters": [8, 16], "dense_units": 32, "initial_biases": "uniform"},
    "vgg16": _base(weights="random"),
    # Glorot's weights would give large features, with which probabilities saturate: Keras then clips the loss
    # on JAX and torch, and not on TensorFlow.
    "resnet50": _base(),
    "mobilenet_v2": _base(),
}
STEPS = 8


def setup(pair: str, photos: str, cache: str, precision: str) -> Nested:
    """The configuration of one pair on the photographs of `parity.ladder.photos`, as nested values."""
    model = {"name": pair, **MODELS[pair]}
    if pair in BACKBONES:
        model["weights"] = weights(pair, Path(photos).parent)
        # What a BatchNorm takes away again (a bias before it, a beta of MobileNetV2's before a linear
        # convolution) has no gradient but rounding, which Adam turns into whole steps: no two correct
        # trainings of such a block agree in float32.
        noisy = precision == "float32" and BACKBONES[pair].normalized
        model["fine_tune_blocks"] = 0 if noisy else 1
    return {
        "augment": _AUGMENT,
        "model": model,
        "training": {**_TRAINING, "precision": precision},
        "data": {"name": "npz", "root": photos, "cache": cache},
    }


def weights(pair: str, folder: Path) -> str:
    """What `model.weights` of a base's pair is; made-up ones are written to `folder`."""
    return MODELS[pair]["weights"] or str(base_file.write(pair, folder))
