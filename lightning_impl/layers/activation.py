"""Activations, by Keras's names of their functions."""

from __future__ import annotations

from torch import nn

from lightning_impl.layers.layer_type import Call, LayerType, Settings


def _gelu(call: Call) -> Settings:
    return {"approximate": call.argument(1, "approximate", "none") == "tanh"}


def _slope(call: Call) -> Settings:
    return {"negative_slope": call.argument(1, "negative_slope", 0.01)}


TABLE = (
    LayerType("relu", (nn.ReLU,), ("relu", "relu_")),
    LayerType("relu6", (nn.ReLU6,), ("relu6",)),
    LayerType(
        "leaky_relu",
        (nn.LeakyReLU,),
        ("leaky_relu", "leaky_relu_"),
        settings=lambda layer: {"negative_slope": layer.negative_slope},
        of_call=_slope,
    ),
    LayerType("elu", (nn.ELU,), ("elu", "elu_")),
    LayerType("selu", (nn.SELU,), ("selu", "selu_")),
    LayerType(
        "gelu",
        (nn.GELU,),
        ("gelu",),
        settings=lambda layer: {"approximate": layer.approximate == "tanh"},
        of_call=_gelu,
    ),
    LayerType("silu", (nn.SiLU,), ("silu", "silu_")),
    LayerType("mish", (nn.Mish,), ("mish",)),
    LayerType("hard_silu", (nn.Hardswish,), ("hardswish",)),
    LayerType("hard_sigmoid", (nn.Hardsigmoid,), ("hardsigmoid",)),
    LayerType("sigmoid", (nn.Sigmoid,), ("sigmoid", "sigmoid_")),
    LayerType("tanh", (nn.Tanh,), ("tanh", "tanh_")),
    LayerType("softplus", (nn.Softplus,), ("softplus",)),
    LayerType("softsign", (nn.Softsign,), ("softsign",)),
    LayerType("softmax", (nn.Softmax,), ("softmax",)),
    LayerType("log_softmax", (nn.LogSoftmax,), ("log_softmax",)),
)
