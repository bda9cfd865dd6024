"""Finds the record of a layer by its class, the most derived first."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import keras

from keras_impl.layers import (
    activation,
    attention,
    convolution,
    dense,
    dropout,
    merge,
    normalisation,
    pooling,
    preprocessing,
    recurrent,
    shape,
)
from keras_impl.layers.layer_type import LayerType, Pixels, Settings, Shape, padded_by

FAMILIES = (
    convolution,
    dense,
    normalisation,
    recurrent,
    attention,
    pooling,
    shape,
    merge,
    activation,
    preprocessing,
    dropout,
)
RULES: dict[str, LayerType] = {}  # a user's, by the names of classes
APART: WeakKeyDictionary[Any, LayerType | None] = WeakKeyDictionary()  # layers that are traced in parts
BY_CLASS = {cls: entry for family in FAMILIES for entry in family.TABLE for cls in entry.classes}


def layer_type(layer: Any) -> LayerType | None:
    """The record of a layer, None where no table has its class or one that it derives from."""
    return APART[layer] if layer in APART else of_class(layer)


def of_class(layer: Any) -> LayerType | None:
    """As `layer_type`, also of a layer that is traced in parts."""
    for cls in type(layer).__mro__:
        if (entry := RULES.get(cls.__name__) or BY_CLASS.get(cls)) is not None:
            return entry if entry.around is None else entry.around(layer, layer_type)
    return None


def kind(layer: Any) -> str:
    """Keras's name for what a layer or an activation does; its class name where no table has it."""
    if isinstance(layer, keras.layers.Activation):
        return kind(layer.activation)
    if not isinstance(layer, keras.Operation):
        return getattr(layer, "__name__", type(layer).__name__)
    entry = layer_type(layer)
    return type(layer).__name__ if entry is None else entry.name(layer)


def settings(layer: Any, input_shape: Shape = (), padded: Pixels = ()) -> Settings:
    """What of a layer's settings changes its numbers, pixels added to or cut from each side among them.

    input_shape: of the batch that the layer got, channels last. padded: the zeros that the layer before it
    added.
    """
    if isinstance(layer, keras.layers.Activation):
        layer = layer.activation
    if not isinstance(layer, keras.Operation):
        return activation.of_function(layer)
    entry = layer_type(layer)
    return {} if entry is None else with_padding(entry.settings(layer, input_shape), padded)


def with_padding(settings: Settings, padded: Pixels) -> Settings:
    """Settings with what was padded just before the layer counted among its own padding."""
    if "padding" not in settings:
        return settings
    return settings | {"padding": padded_by(settings["padding"], padded)}
