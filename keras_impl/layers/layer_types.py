"""What a layer does and with which settings, in Keras's words on both sides."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

Pixels = Sequence[Sequence[int]]  # before and after each axis of space

DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, *DEPTHWISE, *SEPARABLE)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
POOLS = (layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D)

# Settings that change a layer's numbers, by the attributes that hold them.
SETTINGS = {
    "strides": "strides",
    "dilation": "dilation_rate",
    "groups": "groups",
    "epsilon": "epsilon",
    "momentum": "momentum",
    "pool_size": "pool_size",
    "rate": "rate",
    "negative_slope": "negative_slope",
}

# Activations that are layers or operations of their own, by their classes.
ACTIVATIONS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "LogSoftmax": "log_softmax",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    **{name: name.lower() for name in ("Relu", "Relu6", "ELU", "Elu", "Selu", "Gelu", "Silu", "Mish")},
    **{name: name.lower() for name in ("Softmax", "Sigmoid", "Tanh", "Softplus", "Softsign")},
}


def kind(layer: Any) -> str:
    """Keras's name for what a layer or an activation does: its class, or the activation's function."""
    if isinstance(layer, layers.Activation):
        return kind(layer.activation)
    if not isinstance(layer, keras.Operation):
        return getattr(layer, "__name__", type(layer).__name__)
    if isinstance(layer, (*DEPTHWISE, *SEPARABLE)):
        return f"Conv{layer.rank}D"  # torch has no other name for it: a convolution in groups
    if isinstance(layer, layers.ReLU) and (layer.max_value or layer.negative_slope):
        return "relu6" if layer.max_value == 6 else "leaky_relu"
    name = type(layer).__name__.removeprefix("Shared")
    return ACTIVATIONS.get(name, name)


def settings(
    layer: Any,
    input_shape: Sequence[int] = (),
    padded: Pixels = (),
    depthwise: bool = False,
) -> dict[str, Any]:
    """What of a layer's settings changes its numbers, pixels added to or cut from each side among them.

    input_shape: of the batch that the layer got, channels last. padded: the zeros that the layer before it
    added. depthwise: of the first of a SeparableConv2D's two convolutions, not of its second.
    """
    if isinstance(layer, layers.Activation):
        layer = layer.activation
    if not isinstance(layer, keras.Operation):
        # An activation function: the defaults of its arguments.
        given = inspect.signature(layer).parameters
        return {name: given[name].default for name in ("negative_slope", "approximate") if name in given}
    if isinstance(layer, SEPARABLE) and not depthwise:
        ones = [1] * layer.rank
        return {"strides": ones, "dilation": ones, "groups": 1, "padding": [[0, 0]] * layer.rank}
    found = {
        name: getattr(layer, attribute) for name, attribute in SETTINGS.items() if hasattr(layer, attribute)
    }
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    if isinstance(layer, TRANSPOSED):
        found["cropping"] = _cropping(layer)
    if isinstance(layer, (*DEPTHWISE, *SEPARABLE)) and input_shape:
        found["groups"] = input_shape[-1]
    if isinstance(layer, (*CONVOLUTIONS, *POOLS)) and input_shape:
        found["padding"] = _sum(_padding(layer, input_shape), padded)
    return found


def _sum(pairs: Pixels, padded: Pixels) -> Pixels:
    """What a layer adds to each side, and what was added before it."""
    return [[a + c, b + d] for (a, b), (c, d) in zip(pairs, padded or [[0, 0]] * len(pairs), strict=True)]


def _padding(layer: Any, input_shape: Sequence[int]) -> Pixels:
    """What `same` adds before and after each axis, the odd pixel behind; `causal` adds all of it before."""
    if layer.padding == "causal":
        return [[reach - 1, 0] for reach in _reach(layer)]
    if layer.padding != "same":
        return [[0, 0]] * len(layer.strides)
    pairs = []
    for size, reach, stride in zip(input_shape[1:-1], _reach(layer), layer.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        pairs.append([total // 2, total - total // 2])
    return pairs


def _cropping(layer: Any) -> Pixels:
    """What a transposed convolution cuts off before and after each axis; below zero, what it adds."""
    pairs = []
    for reach, stride in zip(_reach(layer), layer.strides, strict=True):
        total = reach - stride if layer.padding == "same" else min(reach - stride, 0)
        before = max(total, 0) // 2
        pairs.append([before, total - before])
    return pairs


def _reach(layer: Any) -> list[int]:
    """How many pixels a kernel spans along each axis."""
    sizes = layer.pool_size if isinstance(layer, POOLS) else layer.kernel_size
    dilations = getattr(layer, "dilation_rate", [1] * len(sizes))
    return [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
