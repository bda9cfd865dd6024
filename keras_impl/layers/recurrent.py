"""Recurrent layers, one way and both ways, and layers applied to every step of a sequence.

What is compared of a recurrent layer is its last state, which it has whether it returns sequences or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_impl.layers.layer_type import (
    LayerType,
    Settings,
    Shape,
    Weight,
    Weights,
    own_weights,
)


def _cells(layer: Any) -> list[Any]:
    """The cells of a layer, the first first: StackedRNNCells are layers on one another."""
    return list(getattr(layer.cell, "cells", [layer.cell]))


def _cell(layer: Any) -> str:
    return _kind(_cells(layer)[-1])


def _kind(cell: Any) -> str:
    return type(cell).__name__.removesuffix("Cell")


def _settings(layer: Any, shape: Shape) -> Settings:
    return _of_cell(layer, _cells(layer)[-1])


def _of_cell(layer: Any, cell: Any) -> Settings:
    names = {name: getattr(cell, name, None) for name in ("activation", "recurrent_activation")}
    settings: Settings = {name: function.__name__ for name, function in names.items() if function is not None}
    if hasattr(cell, "reset_after"):
        settings["reset_after"] = cell.reset_after
    settings |= {name: getattr(cell, name, 0.0) for name in ("dropout", "recurrent_dropout")}
    return settings | ({"go_backwards": True} if layer.go_backwards else {})


def _weights(layer: Any) -> Weights:
    return _weights_of(_cells(layer)[-1])


def _weights_of(cell: Any) -> Weights:
    weights = own_weights(cell)
    if getattr(cell, "reset_after", None) is False and "bias" in weights:
        weights["bias"] = Weight(weights["bias"].variable, _with_recurrent_bias)
    return weights


def _below(layer: Any) -> dict[str, LayerType]:
    """The cells below the last, by the numbers that torch gives to layers on one another."""

    def of(cell: Any) -> LayerType:
        return LayerType(
            _kind(cell), settings=lambda _, shape: _of_cell(layer, cell), weights=lambda _: _weights_of(cell)
        )

    return {f"l{number}": of(cell) for number, cell in enumerate(_cells(layer)[:-1])}


def _with_recurrent_bias(bias: np.ndarray) -> np.ndarray:
    """The bias of a GRU that resets before, and zeros for the second that one that resets after has."""
    return np.stack([bias, np.zeros_like(bias)])


def _last(layer: Any, output: Any) -> Any:
    output = _first(output)
    return output[:, -1] if layer.return_sequences else output


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, list | tuple) else output


def _both(layer: Any) -> dict[str, Any]:
    return {"forward": layer.forward_layer, "backward": layer.backward_layer}


def _both_weights(layer: Any) -> Weights:
    return {
        f"{way}_{name}": weight for way, one in _both(layer).items() for name, weight in _weights(one).items()
    }


def _both_settings(layer: Any, shape: Shape) -> Settings:
    return _settings(layer.forward_layer, shape) | {"merge_mode": layer.merge_mode}


def _both_last(layer: Any, output: Any) -> Any:
    """Of a sequence, the last step forward and, of the other way, the first."""
    output = _first(output)
    if not layer.return_sequences or layer.merge_mode != "concat":
        return output
    units = output.shape[-1] // 2
    return np.concatenate([output[:, -1, :units], output[:, 0, units:]], axis=-1)


def _each_step(layer: Any, output: Any) -> Any:
    """Steps as further rows of the batch, unless the layer itself leaves them in place."""
    if isinstance(layer.layer, keras.layers.Dense | keras.layers.LayerNormalization):
        return output
    return output.reshape(-1, *output.shape[2:])


def _fused(layer: Any) -> Any:
    function = getattr(layer.layer, "activation", None)
    return None if getattr(function, "__name__", "linear") == "linear" else function


def _at_each_step(layer: Any, of: Callable[[Any], LayerType | None]) -> LayerType:
    """The record of the layer that is applied to every step, as one on further rows of the batch."""
    inner = of(layer.layer) or LayerType(type(layer.layer).__name__)
    return LayerType(
        inner.name(layer.layer),
        settings=lambda layer, shape: inner.settings(layer.layer, (shape[0], *shape[2:]) if shape else shape),
        weights=lambda layer: inner.weights(layer.layer),
        output=_each_step,
        fused=_fused,
        random=inner.random,
    )


TABLE = (
    LayerType(_cell, (layers.RNN,), _settings, _weights, _last, before=_below, random=True),
    LayerType(
        lambda layer: f"Bidirectional{_cell(layer.forward_layer)}",
        (layers.Bidirectional,),
        _both_settings,
        _both_weights,
        _both_last,
        random=True,
    ),
    LayerType("TimeDistributed", (layers.TimeDistributed,), around=_at_each_step),
)
