"""Recurrent layers, one way and both ways, one on another.

What is compared is the last state, which a layer has whether all its steps are used or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_impl.layers.layer_type import LayerType, Settings, Weight, Weights

# Torch's places of Keras's gates: a GRU's are reset, update, new in torch and update, reset, new in Keras.
GATES = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "SimpleRNN": (0,)}


def _cell(layer: Any) -> str:
    return "SimpleRNN" if isinstance(layer, nn.RNN) else layer.mode


def _kind(layer: Any) -> str:
    return f"Bidirectional{_cell(layer)}" if layer.bidirectional else _cell(layer)


def _settings(layer: Any) -> Settings:
    settings: Settings = {"activation": getattr(layer, "nonlinearity", "tanh")}
    if _cell(layer) != "SimpleRNN":
        settings["recurrent_activation"] = "sigmoid"
    if _cell(layer) == "GRU":
        settings["reset_after"] = True
    return settings | ({"merge_mode": "concat"} if layer.bidirectional else {})


def _weights(layer: Any, number: int | None = None) -> Weights:
    """The weights of one of the layers that stand on another, the last unless told otherwise."""
    number = layer.num_layers - 1 if number is None else number
    weights: Weights = {}
    ways = (("forward_", ""), ("backward_", "_reverse")) if layer.bidirectional else (("", ""),)
    for prefix, suffix in ways:
        place = f"l{number}{suffix}"
        gates = GATES[_cell(layer)]
        for name, tensor in (("kernel", "weight_ih"), ("recurrent_kernel", "weight_hh")):
            weights[f"{prefix}{name}"] = Weight(layer, (f"{tensor}_{place}",), partial(_kernel, gates))
        if layer.bias:
            both = f"bias_ih_{place}", f"bias_hh_{place}"
            if _cell(layer) == "GRU":  # has Keras's two, its reset coming after
                weights[f"{prefix}bias"] = Weight(layer, both, partial(_biases, gates))
            else:
                weights[f"{prefix}bias"] = Weight(layer, both[:1], added=both[1:])
    return weights


def _kernel(gates: Sequence[int], kernel: Tensor) -> Tensor:
    return _ordered(gates, kernel).mT


def _biases(gates: Sequence[int], *biases: Tensor) -> Tensor:
    return torch.stack([_ordered(gates, bias) for bias in biases])


def _ordered(gates: Sequence[int], weight: Tensor) -> Tensor:
    parts = weight.chunk(len(gates))
    return torch.cat([parts[gate] for gate in gates])


def _last(layer: Any, output: Any) -> Tensor:
    """The last layer's state after the last step; of both ways, one after the other."""
    states = output[1][0] if isinstance(output[1], tuple) else output[1]
    return torch.cat([states[-2], states[-1]], -1) if layer.bidirectional else states[-1]


def _before(layer: Any) -> Mapping[str, LayerType]:
    def lower(number: int) -> Callable[[Any], Weights]:
        return lambda layer: _weights(layer, number)

    return {
        f"l{number}": LayerType(_kind, settings=_settings, weights=lower(number))
        for number in range(layer.num_layers - 1)
    }


TABLE = (
    LayerType(
        _kind,
        (nn.RNN, nn.LSTM, nn.GRU),
        settings=_settings,
        weights=_weights,
        output=_last,
        before=_before,
        channels=-1,
        random=True,
    ),
)
