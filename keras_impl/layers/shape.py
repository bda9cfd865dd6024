"""Layers that move, add, cut off or repeat elements."""

from __future__ import annotations

from keras import layers

from keras_impl.layers.layer_type import LayerType

TABLE = (
    LayerType("Flatten", (layers.Flatten,)),
    LayerType("ZeroPadding2D", (layers.ZeroPadding2D,)),
    LayerType("UpSampling2D", (layers.UpSampling2D,)),
)
