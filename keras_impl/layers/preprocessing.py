"""Preprocessing that stands in a model: its variables are constants, to torch no weights."""

from __future__ import annotations

from keras import layers
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)

from keras_impl.layers.layer_type import LayerType, no_weights


def _own_name(layer: object) -> str:
    return type(layer).__name__


TABLE = (
    LayerType("Rescaling", (layers.Rescaling,)),
    LayerType("Normalization", (layers.Normalization,), weights=no_weights),
    # Resizing and cropping among them, which do the same in training.
    LayerType(_own_name, (BaseImagePreprocessingLayer,), weights=no_weights, random=True),
)
