"""Finds the record of a layer: by its class, the most derived first, or by a function's name."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_impl.layers import (
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
from lightning_impl.layers.layer_type import Call, LayerType, Pixels, Settings, padded_by

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
BY_CLASS = {cls: entry for family in FAMILIES for entry in family.TABLE for cls in entry.classes}
BY_FUNCTION = {name: entry for family in FAMILIES for entry in family.TABLE for name in entry.functions}


def layer_type(layer: Any) -> LayerType | None:
    """The record of a module, None where no table has its class or one that it derives from."""
    return next((BY_CLASS[cls] for cls in type(layer).__mro__ if cls in BY_CLASS), None)


def kind(layer: nn.Module) -> str:
    """Keras's name for what a layer does; its class name where no table has it."""
    entry = layer_type(layer)
    return type(layer).__name__ if entry is None else entry.name(layer)


def settings(layer: nn.Module, padded: Pixels = ()) -> Settings:
    """What of a layer's settings changes its numbers, under Keras's names and with Keras's meaning.

    padded: the zeros that a function or layer before this one put around its input.
    """
    entry = layer_type(layer)
    return {} if entry is None else with_padding(entry.settings(layer), padded)


def of_function(call: Call) -> LayerType | None:
    """The record that a function's call stands for, None for what is no layer."""
    entry = BY_FUNCTION.get(call.name)
    return entry if entry is not None and entry.is_layer(call) else None


def with_padding(settings: Settings, padded: Pixels) -> Settings:
    """Settings with what was padded just before the layer counted among its own padding."""
    if "padding" not in settings:
        return settings
    return settings | {"padding": padded_by(settings["padding"], padded)}
