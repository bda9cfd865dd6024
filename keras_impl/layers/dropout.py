"""Layers that act in training alone."""

from __future__ import annotations

from keras import layers

from keras_impl.dropout import SharedDropout
from keras_impl.layers.layer_type import LayerType, attributes

TABLE = (
    LayerType("Dropout", (layers.Dropout, SharedDropout), attributes("rate")),
    LayerType("SpatialDropout1D", (layers.SpatialDropout1D,), attributes("rate")),
    LayerType("SpatialDropout2D", (layers.SpatialDropout2D,), attributes("rate")),
    LayerType("SpatialDropout3D", (layers.SpatialDropout3D,), attributes("rate")),
    LayerType("AlphaDropout", (layers.AlphaDropout,), attributes("rate")),
    LayerType("GaussianDropout", (layers.GaussianDropout,), attributes("rate")),
)
