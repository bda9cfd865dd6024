"""Activations, by Keras's names of their functions, and scales that are learnt."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_impl.layers.layer_type import Call, LayerType, Settings, own


def _gelu(call: Call) -> Settings:
    return {"approximate": call.argument(1, "approximate", "none") == "tanh"}


def _slope(call: Call) -> Settings:
    return {"negative_slope": call.argument(1, "negative_slope", 0.01)}


def _alpha(layer: Any) -> Settings:
    return {"alpha": layer.argument(1, "alpha", 1.0) if isinstance(layer, Call) else layer.alpha}


def _by_channel(scale: Tensor) -> Tensor:
    """A scale (C, 1, 1), or (1, C, 1, 1), as (C,)."""
    return scale.reshape(-1) if scale.numel() == max(scale.shape, default=1) else scale


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
    LayerType(
        "PReLU",
        (nn.PReLU,),
        ("prelu",),
        weights=lambda layer: own(layer, weight="alpha"),
        positions=lambda call: {"weight": 1},
    ),
    LayerType("elu", (nn.ELU,), ("elu", "elu_"), settings=_alpha, of_call=_alpha),
    LayerType("selu", (nn.SELU,), ("selu", "selu_")),
    LayerType("celu", (nn.CELU,), ("celu", "celu_"), settings=_alpha, of_call=_alpha),
    LayerType(
        "gelu",
        (nn.GELU,),
        ("gelu",),
        named=("GELUTanh",),
        settings=lambda layer: {"approximate": getattr(layer, "approximate", "tanh") == "tanh"},
        of_call=_gelu,
    ),
    LayerType("glu", (nn.GLU,), ("glu",)),
    LayerType("silu", (nn.SiLU,), ("silu", "silu_")),
    LayerType("mish", (nn.Mish,), ("mish",)),
    LayerType("hard_silu", (nn.Hardswish,), ("hardswish",)),
    LayerType("hard_sigmoid", (nn.Hardsigmoid,), ("hardsigmoid",)),
    LayerType("hard_tanh", (nn.Hardtanh,), ("hardtanh", "hardtanh_")),
    LayerType("hard_shrink", (nn.Hardshrink,), ("hardshrink",)),
    LayerType("soft_shrink", (nn.Softshrink,), ("softshrink",)),
    LayerType("tanh_shrink", (nn.Tanhshrink,), ("tanhshrink",)),
    LayerType("sigmoid", (nn.Sigmoid,), ("sigmoid", "sigmoid_")),
    LayerType("log_sigmoid", (nn.LogSigmoid,), ("logsigmoid",)),
    LayerType("tanh", (nn.Tanh,), ("tanh", "tanh_")),
    LayerType("softplus", (nn.Softplus,), ("softplus",)),
    LayerType("softsign", (nn.Softsign,), ("softsign",)),
    LayerType("softmax", (nn.Softmax,), ("softmax",)),
    LayerType("log_softmax", (nn.LogSoftmax,), ("log_softmax",)),
    # A block's own parameter: gamma * x
    LayerType(
        "LayerScale",
        on_parameter=("mul", "mul_", "__rmul__"),
        weights=lambda arguments: own(arguments, _by_channel, weight="gamma"),
    ),
)
