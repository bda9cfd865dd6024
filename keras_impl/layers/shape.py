"""Layers that move, add, cut off or repeat elements."""

from __future__ import annotations

from typing import Any

from keras import layers
from keras.src.ops import numpy as operations

from keras_impl.layers.layer_type import LayerType, Pixels, Settings, Shape


def pairs(amounts: Any) -> Pixels:
    """What a layer adds or cuts before and after each axis of space; of one axis Keras says a pair."""
    return [list(pair) for pair in (amounts if isinstance(amounts[0], tuple | list) else [amounts])]


def _upsampling(layer: Any, shape: Shape) -> Settings:
    size = layer.size if isinstance(layer.size, tuple | list) else [layer.size]
    how = {"interpolation": getattr(layer, "interpolation", "nearest"), "align_corners": False}
    return {"size": list(size)} | how


TABLE = (
    LayerType("Flatten", (layers.Flatten,)),
    LayerType("Reshape", (layers.Reshape, operations.Reshape)),
    LayerType("Permute", (layers.Permute, operations.Transpose)),
    LayerType("RepeatVector", (layers.RepeatVector,)),
    *(
        LayerType(f"{name}{size}D", (getattr(layers, f"{name}{size}D"),), settings)
        for name, settings in (
            ("ZeroPadding", lambda layer, shape: {"amounts": pairs(layer.padding)}),
            ("Cropping", lambda layer, shape: {"amounts": pairs(layer.cropping)}),
            ("UpSampling", _upsampling),
        )
        for size in (1, 2, 3)
    ),
)
