"""Normalisation over the batch, over features and over groups of channels."""

from __future__ import annotations

from keras import layers

from keras_impl.layers.layer_type import LayerType, attributes

TABLE = (
    LayerType("BatchNormalization", (layers.BatchNormalization,), attributes("epsilon", "momentum")),
    LayerType("LayerNormalization", (layers.LayerNormalization,), attributes("epsilon")),
    LayerType("GroupNormalization", (layers.GroupNormalization,), attributes("epsilon", "groups")),
)
