"""The source rules of every family, by Keras's class names."""

from __future__ import annotations

from dataclasses import replace

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
from lightning_impl.layers.source import CallOf, Module, Piece, SourceRule, Untranslatable, Value

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


# What acts on the last axis, or on each element: on every step as it stands.
OF_FEATURES = ("Dense", "LayerNormalization", "Activation", "ReLU", "LeakyReLU", "ELU", "Rescaling")


def _at_each_step(layer: Layer, call: CallOf) -> list[Piece]:
    """TimeDistributed: its layer acts on all steps at once, as on further rows of the batch."""
    inner, (_, steps, *shape), (_, _, *given) = layer.settings["layer"], call.input.shape, call.output.shape
    rule = LAYERS.get(inner["kind"])
    if rule is None or inner["kind"] in ("TimeDistributed", "Bidirectional", "LSTM", "GRU", "SimpleRNN"):
        raise Untranslatable(f"it applies a {inner['kind']} to each step: build the model without it")
    if inner["kind"] == "BatchNormalization":
        raise Untranslatable("its BatchNormalization takes the statistics of each step apart")
    if steps is None:
        raise Untranslatable("its number of steps is open")
    applied = replace(layer, kind=inner["kind"], settings=inner["settings"])
    if applied.constraints:
        raise Untranslatable(f"its {inner['kind']} has a constraint")
    if inner["kind"] in OF_FEATURES:
        return list(rule.write(applied, call))
    first = rule.layout == "first" and len(shape) > 1
    values = [Value((None, *sizes), first, call.input.dtype) for sizes in (shape, given)]
    back = {"channels_first": True} if first and len(given) > 1 else {}
    return [
        Module("StepsAsRows", {"channels_first": True} if first else {}, "rows"),
        *rule.write(applied, CallOf(values[:1], values[1:])),
        Module("RowsAsSteps", {"*steps": steps, **back}, "steps"),
    ]


LAYERS["TimeDistributed"] = SourceRule(_at_each_step, "last")


def source_rule(layer: Layer) -> SourceRule | None:
    """The rule of a layer that Keras brings, or of a function of keras.ops; None where there is none."""
    if not layer.of_keras:
        return None
    table = operations.SOURCES if layer.module.startswith("keras.src.ops") else LAYERS
    return table.get(layer.kind)
