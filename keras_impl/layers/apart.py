"""Layers that are traced in parts, where the other side has a layer for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from experiment.protocols.trace import PARTS
from keras_impl.layers import registry
from keras_impl.layers.layer_type import LayerType, Weight, Weights


def take_apart(layers: Iterable[tuple[Any, int]]) -> None:
    """Let `layer_type` see through attentions, and see a Dense layer of several parts as so many.

    layers: each with its number of parts. The last part of a Dense layer goes by the layer's own name.
    """
    for layer, count in layers:
        whole = registry.of_class(layer)
        assert whole is not None, "what a table has is traced in parts, nothing else"
        registry.APART[layer] = _in_parts(whole, count) if whole.name(layer) == "Dense" else None


def _in_parts(dense: LayerType, count: int) -> LayerType:
    def part(place: int) -> LayerType:
        def weights(layer: Any) -> Weights:
            return {
                name: Weight(weight.variable, partial(_slice, weight.view, place, count))
                for name, weight in dense.weights(layer).items()
            }

        return replace(dense, weights=weights)

    *before, _ = PARTS[count]
    return replace(
        part(count - 1),
        output=lambda layer, output: np.split(output, count, axis=-1)[-1],
        before=lambda layer: {name: part(place) for place, name in enumerate(before)},
        beside=True,
    )


def _slice(view: Any, place: int, count: int, array: np.ndarray) -> np.ndarray:
    return np.split(view(array), count, axis=-1)[place]
