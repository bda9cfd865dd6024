"""Layers that act in training alone."""

from __future__ import annotations

from typing import Any

from keras import layers
from keras.src.applications.convnext import StochasticDepth

from keras_impl.dropout import SharedDropout
from keras_impl.layers.layer_type import LayerType, attributes, no_weights


def _own_name(layer: Any) -> str:
    return next(cls.__name__ for cls in type(layer).__mro__ if cls.__module__.startswith("keras."))


def _dropout(layer: Any) -> str:
    """Dropout, or StochasticDepth where it drops whole samples, as in Keras's EfficientNets."""
    shape = layer.noise_shape
    return "StochasticDepth" if shape and all(size == 1 for size in shape[1:]) else "Dropout"


TABLE = (
    LayerType(_dropout, (layers.Dropout,), attributes("rate"), no_weights, random=True),
    LayerType("Dropout", (SharedDropout,), attributes("rate"), no_weights, random=True),
    LayerType(
        _own_name,
        (
            layers.SpatialDropout1D,
            layers.SpatialDropout2D,
            layers.SpatialDropout3D,
            layers.AlphaDropout,
            layers.GaussianDropout,
        ),
        attributes("rate"),
        no_weights,
        random=True,
    ),
    LayerType("GaussianNoise", (layers.GaussianNoise,), attributes("stddev"), no_weights, random=True),
    LayerType(
        "StochasticDepth", (StochasticDepth,), attributes(rate="drop_path_rate"), no_weights, random=True
    ),
)
