"""Activations, by Keras's names of their functions, and scales that are learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from experiment.protocols.graph import Layer
from lightning_impl.layers.layer_type import Call, LayerType, Settings, own
from lightning_impl.layers.source import CallOf, Expression, Module, Piece, SourceRule, Untranslatable, Value


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


# === Source ===

# Keras's functions: torch's module, and how a forward writes it.
MODULES = {
    "relu": ("nn.ReLU", "F.relu({0})"),
    "relu6": ("nn.ReLU6", "F.relu6({0})"),
    "elu": ("nn.ELU", "F.elu({0})"),
    "selu": ("nn.SELU", "F.selu({0})"),
    "celu": ("nn.CELU", "F.celu({0})"),
    "silu": ("nn.SiLU", "F.silu({0})"),
    "mish": ("nn.Mish", "F.mish({0})"),
    "hard_silu": ("nn.Hardswish", "F.hardswish({0})"),
    "hard_sigmoid": ("nn.Hardsigmoid", "F.hardsigmoid({0})"),
    "sigmoid": ("nn.Sigmoid", "torch.sigmoid({0})"),
    "log_sigmoid": ("nn.LogSigmoid", "F.logsigmoid({0})"),
    "tanh": ("nn.Tanh", "torch.tanh({0})"),
    "softplus": ("nn.Softplus", "F.softplus({0})"),
    "softsign": ("nn.Softsign", "F.softsign({0})"),
    "hard_tanh": ("nn.Hardtanh", "F.hardtanh({0})"),
    "tanh_shrink": ("nn.Tanhshrink", "F.tanhshrink({0})"),
    "soft_shrink": ("nn.Softshrink", "F.softshrink({0})"),
    "hard_shrink": ("nn.Hardshrink", "F.hardshrink({0})"),
    "exponential": ("Exponential", "{0}.exp()"),
    "squareplus": ("Squareplus", "({0} + ({0}.square() + 4).sqrt()) / 2"),
}
ALIASES = {"swish": "silu", "hard_swish": "hard_silu", "leaky_relu6": "leaky_relu"}
OF_CLASS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "HardSilu": "hard_silu",
    "HardSigmoid": "hard_sigmoid",
    **{name.title().replace("_", ""): name for name in MODULES},
}


def module_of(activation: Any, value: Value) -> list[Module]:
    """What a `activation` setting of Keras's becomes on a value; nothing for linear."""
    if activation in (None, "linear"):
        return []
    settings: dict[str, Any] = {}
    if isinstance(activation, dict):
        settings = activation["settings"] if isinstance(activation["settings"], dict) else {}
        name = OF_CLASS.get(activation["kind"], "")
        if not name:
            raise Untranslatable(f"its activation {activation['settings']} is no function of Keras's")
    else:
        name = str(ALIASES.get(activation, activation))
    return [_module(name, settings, value)]


def _module(name: str, settings: dict[str, Any], value: Value) -> Module:
    if name in ("softmax", "log_softmax"):
        dim = value.dim(_axis(settings.get("axis", -1)))
        dim = -1 if dim == value.rank - 1 else dim
        kind = "Softmax" if name == "softmax" else "LogSoftmax"
        return Module(f"nn.{kind}", {"dim": dim}, name, inline=f"F.{name}({{0}}, dim={dim})")
    if name == "gelu":
        if settings.get("approximate", False):
            return Module("nn.GELU", {"approximate": "tanh"}, name, inline='F.gelu({0}, approximate="tanh")')
        return Module("nn.GELU", {}, name, inline="F.gelu({0})")
    if name == "leaky_relu":
        slope = settings.get("negative_slope", 0.2)
        comment = "torch's default slope is 0.01"
        return Module(
            "nn.LeakyReLU", {"*negative_slope": slope}, name, comment, inline=f"F.leaky_relu({{0}}, {slope})"
        )
    if name == "elu" and (alpha := settings.get("alpha", 1.0)) != 1.0:
        return Module("nn.ELU", {"*alpha": alpha}, name, inline=f"F.elu({{0}}, {alpha})")
    if name == "relu" and (settings.get("max_value") is not None or settings.get("threshold")):
        return _clipped(settings)
    if name == "relu" and settings.get("negative_slope"):
        return _module("leaky_relu", settings, value)
    if name not in MODULES:
        raise Untranslatable(f"its activation {name} has no counterpart in torch")
    module, inline = MODULES[name]
    return Module(module, {}, name, inline=inline)


def _clipped(settings: dict[str, Any]) -> Module:
    """Keras's ReLU with a ceiling."""
    top, slope, threshold = (settings.get(key) or 0 for key in ("max_value", "negative_slope", "threshold"))
    if slope or threshold:
        raise Untranslatable("its ReLU has a slope or a threshold beside its ceiling, or a threshold alone")
    if top == 6:
        return Module("nn.ReLU6", {}, "relu6", inline="F.relu6({0})")
    return Module(
        "nn.Hardtanh", {"min_val": 0.0, "max_val": float(top)}, "relu", inline=f"{{0}}.clamp(0, {top})"
    )


def _axis(axis: Any) -> int:
    if isinstance(axis, list):
        if len(axis) != 1:
            raise Untranslatable("its softmax is over several axes")
        return axis[0]
    return axis


def _of_layer(layer: Layer, call: CallOf) -> list[Piece]:
    activation: Any = layer.settings.get("activation")
    if layer.kind != "Activation":
        activation = {"kind": layer.kind, "settings": layer.settings}
    if activation in (None, "linear"):
        return [Expression("{0}", Module("nn.Identity"))]
    # It has a name of its own.
    return [replace(module, inline=None, suffix="") for module in module_of(activation, call.input)]


def _prelu(layer: Layer, call: CallOf) -> list[Piece]:
    shared = {axis % call.input.rank for axis in layer.settings.get("shared_axes") or []}
    if shared != set(range(1, call.input.rank - 1)):
        raise Untranslatable("its slopes are not shared over space: give it shared_axes=[1, 2]")
    return [Module("nn.PReLU", {"*num_parameters": call.input.channels})]


SOURCES = {
    **{name: SourceRule(_of_layer) for name in ("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax")},
    "PReLU": SourceRule(_prelu, "first"),
}
