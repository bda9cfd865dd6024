"""Activations: layers, and functions that a layer ends in, by Keras's names of the functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from keras import layers
from keras.src.ops import nn
from keras.src.ops.numpy import Tanh

from keras_impl.layers.layer_type import LayerType, Settings, attributes


def of_function(function: Callable) -> Settings:
    """The settings of an activation that is a function: the defaults of its arguments."""
    parameters = inspect.signature(function).parameters
    return {
        name: parameters[name].default for name in ("negative_slope", "approximate") if name in parameters
    }


def _relu(layer: Any) -> str:
    if layer.max_value or layer.negative_slope:
        return "relu6" if layer.max_value == 6 else "leaky_relu"
    return "relu"


TABLE = (
    LayerType("relu", (nn.Relu,)),
    LayerType(_relu, (layers.ReLU,), attributes("negative_slope")),
    LayerType("relu6", (nn.Relu6,)),
    LayerType("leaky_relu", (layers.LeakyReLU, nn.LeakyRelu), attributes("negative_slope")),
    LayerType("elu", (layers.ELU, nn.Elu)),
    LayerType("selu", (nn.Selu,)),
    LayerType("gelu", (nn.Gelu,), attributes("approximate")),
    LayerType("silu", (nn.Silu,)),
    LayerType("hard_silu", (nn.HardSilu,)),
    LayerType("hard_sigmoid", (nn.HardSigmoid,)),
    LayerType("sigmoid", (nn.Sigmoid,)),
    LayerType("tanh", (Tanh,)),
    LayerType("softplus", (nn.Softplus,)),
    LayerType("softsign", (nn.Softsign,)),
    LayerType("softmax", (layers.Softmax, nn.Softmax)),
    LayerType("log_softmax", (nn.LogSoftmax,)),
)
