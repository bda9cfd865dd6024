"""Normalisation over the batch, over features and over groups of channels."""

from __future__ import annotations

from typing import Any

from keras import layers

from keras_impl.layers.layer_type import LayerType, Settings, Shape, attributes


def _groups(layer: Any, shape: Shape) -> Settings:
    channels = shape[layer.axis] if shape else layer.groups
    return {"epsilon": layer.epsilon, "groups": channels if layer.groups == -1 else layer.groups}


TABLE = (
    LayerType("BatchNormalization", (layers.BatchNormalization,), attributes("epsilon", "momentum")),
    LayerType("LayerNormalization", (layers.LayerNormalization,), attributes("epsilon")),
    LayerType("GroupNormalization", (layers.GroupNormalization,), _groups),
    LayerType("RMSNormalization", (layers.RMSNormalization,), attributes("epsilon")),
    LayerType("UnitNormalization", (layers.UnitNormalization,)),
)
