"""Finds the record of a layer: by its class, the most derived first, or by a function's name."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

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
RULES: dict[str, LayerType] = {}  # a user's, by the names of classes
APART: WeakKeyDictionary[nn.Module, LayerType] = WeakKeyDictionary()  # modules that are traced in parts
BY_CLASS = {cls: entry for family in FAMILIES for entry in family.TABLE for cls in entry.classes}
BY_FUNCTION = {name: entry for family in FAMILIES for entry in family.TABLE for name in entry.functions}

BY_NAME = {name: entry for family in FAMILIES for entry in family.TABLE for name in entry.named}
ON_PARAMETER = {name: entry for family in FAMILIES for entry in family.TABLE for name in entry.on_parameter}


def layer_type(layer: Any) -> LayerType | None:
    """The record of a module, None where no table has its class or one that it derives from."""
    if layer in APART:
        return APART[layer]
    return next((entry for cls in type(layer).__mro__ if (entry := _of_class(cls)) is not None), None)


def is_whole(module: nn.Module) -> bool:
    """Whether a module is one layer: a table has it, and its forward is not another's than the table's."""
    for cls in type(module).__mro__:
        if _of_class(cls) is not None:
            return type(module).forward is cls.forward
    return False


def _of_class(cls: type) -> LayerType | None:
    written = f"{cls.__module__.rsplit('.', 1)[-1]}.{cls.__name__}"  # of a package: keras_semantics.Attention
    return RULES.get(cls.__name__) or BY_CLASS.get(cls) or BY_NAME.get(cls.__name__) or BY_NAME.get(written)


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


def kind_of_function(name: str) -> str:
    """The kind of a function that merges layers' outputs, or its own name written as a kind."""
    entry = BY_FUNCTION.get(name)
    if entry is not None and entry.merges and isinstance(entry.kind, str):
        return entry.kind
    return "".join(part.title() for part in name.strip("_").split("_"))


def of_parameter(call: Call) -> LayerType | None:
    """The record that a function's call on a block's own parameter stands for, if any."""
    entry = ON_PARAMETER.get(call.name)
    return entry if entry is not None and entry.is_layer(call) else None


def with_padding(settings: Settings, padded: Pixels) -> Settings:
    """Settings with what was padded just before the layer counted among its own padding."""
    if "padding" not in settings:
        return settings
    return settings | {"padding": padded_by(settings["padding"], padded)}
