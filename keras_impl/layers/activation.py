"""Activations: layers, and functions that a layer ends in, by Keras's names of the functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers
from keras.src.applications.convnext import LayerScale
from keras.src.ops import nn
from keras.src.ops.numpy import Tanh

from keras_impl.layers.layer_type import LayerType, Settings, Weight, Weights, attributes, own_weights


def of_function(function: Callable) -> Settings:
    """The settings of an activation that is a function: the defaults of its arguments."""
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    return {name: defaults[name] for name in ("negative_slope", "approximate") if name in defaults}


def _relu(layer: Any) -> str:
    if layer.max_value or layer.negative_slope:
        return "relu6" if layer.max_value == 6 else "leaky_relu"
    return "relu"


def _slopes(layer: Any) -> Weights:
    return {"alpha": Weight(own_weights(layer)["alpha"].variable, _by_channel)}


def _by_channel(alpha: np.ndarray) -> np.ndarray:
    """PReLU's slopes (1, ..., C) as (C,); those that differ over space stay as they are."""
    return alpha.reshape(-1) if alpha.size == alpha.shape[-1] else alpha


TABLE = (
    LayerType("relu", (nn.Relu,)),
    LayerType(_relu, (layers.ReLU,), attributes("negative_slope")),
    LayerType("relu6", (nn.Relu6,)),
    LayerType("leaky_relu", (layers.LeakyReLU, nn.LeakyRelu), attributes("negative_slope")),
    LayerType("PReLU", (layers.PReLU,), weights=_slopes),
    LayerType("elu", (layers.ELU, nn.Elu), attributes("alpha")),
    LayerType("selu", (nn.Selu,)),
    LayerType("celu", (nn.Celu,), attributes("alpha")),
    LayerType("gelu", (nn.Gelu,), attributes("approximate")),
    LayerType("glu", (nn.Glu,)),
    LayerType("silu", (nn.Silu,)),
    LayerType("hard_silu", (nn.HardSilu,)),
    LayerType("hard_sigmoid", (nn.HardSigmoid,)),
    LayerType("hard_tanh", (nn.HardTanh,)),
    LayerType("hard_shrink", (nn.HardShrink,)),
    LayerType("soft_shrink", (nn.SoftShrink,)),
    LayerType("tanh_shrink", (nn.TanhShrink,)),
    LayerType("sigmoid", (nn.Sigmoid,)),
    LayerType("log_sigmoid", (nn.LogSigmoid,)),
    LayerType("tanh", (Tanh,)),
    LayerType("softplus", (nn.Softplus,)),
    LayerType("softsign", (nn.Softsign,)),
    LayerType("softmax", (layers.Softmax, nn.Softmax)),
    LayerType("log_softmax", (nn.LogSoftmax,)),
    LayerType("LayerScale", (LayerScale,), weights=lambda layer: {"gamma": Weight(layer.gamma)}),
)
