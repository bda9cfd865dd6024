"""Preprocessing that stands in a model: its variables are constants, to torch no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import layers
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)

from keras_impl.layers.layer_type import LayerType, exact, no_weights


def _own_name(layer: Any) -> str:
    return type(layer).__name__


def _given(layer: Any) -> Mapping[str, Any]:
    """The mean and the variance that a Normalization was given, as it keeps them."""
    if layer.input_mean is None:
        return {}
    values = {"mean": layer.input_mean, "variance": layer.input_variance}
    return {name: _broadcast(layer, np.asarray(value, np.float64)) for name, value in values.items()}


def _broadcast(layer: Any, values: np.ndarray) -> np.ndarray:
    shape = [1] * len(layer.mean.shape)
    for axis in range(1, min(values.ndim, len(layer._keep_axis)) + 1):
        shape[layer._keep_axis[-axis]] = values.shape[-axis]
    return np.broadcast_to(values.reshape(shape), layer.mean.shape)


TABLE = (
    LayerType("Rescaling", (layers.Rescaling,), constants=exact("scale", "offset")),
    LayerType("Normalization", (layers.Normalization,), weights=no_weights, constants=_given),
    # Resizing and cropping among them, which do the same in training.
    LayerType(_own_name, (BaseImagePreprocessingLayer,), weights=no_weights, random=True),
)
