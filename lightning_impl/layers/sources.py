"""The source rules of every family, by Keras's class names."""

from __future__ import annotations

from experiment.protocols.graph import Layer
from lightning_impl.layers import (
    activation,
    attention,
    convolution,
    dense,
    dropout,
    merge,
    normalisation,
    operations,
    pooling,
    preprocessing,
    recurrent,
    shape,
)
from lightning_impl.layers.source import SourceRule

FAMILIES = (
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
LAYERS: dict[str, SourceRule] = {kind: rule for family in FAMILIES for kind, rule in family.SOURCES.items()}


def source_rule(layer: Layer) -> SourceRule | None:
    """The rule of a layer that Keras brings, or of a function of keras.ops; None where there is none."""
    if not layer.of_keras:
        return None
    table = operations.SOURCES if layer.module.startswith("keras.src.ops") else LAYERS
    return table.get(layer.kind)
