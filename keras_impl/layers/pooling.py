"""Pooling over windows, and over all of space."""

from __future__ import annotations

from typing import Any

from keras import layers

from keras_impl.layers.convolution import padding
from keras_impl.layers.layer_type import LayerType, Settings, Shape

SIZES = (1, 2, 3)


def _settings(layer: Any, shape: Shape) -> Settings:
    settings = {"pool_size": list(layer.pool_size), "strides": list(layer.strides)}
    if shape:
        settings["padding"] = padding(layer.padding, shape, layer.pool_size, layer.strides)
    return settings


TABLE = (
    *(
        LayerType(f"{which}Pooling{n}D", (getattr(layers, f"{which}Pooling{n}D"),), _settings)
        for which in ("Max", "Average")
        for n in SIZES
    ),
    *(
        LayerType(f"Global{which}Pooling{n}D", (getattr(layers, f"Global{which}Pooling{n}D"),))
        for which in ("Max", "Average")
        for n in SIZES
    ),
)
