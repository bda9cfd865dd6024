"""Convolutions and transposed convolutions, of one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers

from keras_impl.layers.layer_type import LayerType, Pixels, Settings, Shape, Weights, own_weights

DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


def _kind(layer: Any) -> str:
    return f"Conv{layer.rank}D"  # torch has no other name for a depthwise one: a convolution in groups


def _settings(layer: Any, shape: Shape, groups: int | None = None) -> Settings:
    settings = {
        "strides": list(layer.strides),
        "dilation": list(layer.dilation_rate),
        "groups": layer.groups if groups is None else groups,
    }
    if shape:
        reach = spans(layer.kernel_size, layer.dilation_rate)
        settings["padding"] = padding(layer.padding, shape, reach, layer.strides)
    return settings


def _in_groups(layer: Any, shape: Shape) -> Settings:
    """Of a depthwise convolution, and of the first half of a separable one: each channel by itself."""
    return _settings(layer, shape, shape[-1] if shape else None)


def _pointwise(layer: Any, shape: Shape) -> Settings:
    ones = [1] * layer.rank
    return {"strides": ones, "dilation": ones, "groups": 1, "padding": [[0, 0]] * layer.rank}


def _transposed(layer: Any, shape: Shape) -> Settings:
    return {
        "strides": list(layer.strides),
        "dilation": list(layer.dilation_rate),
        "groups": 1,
        "cropping": _cropping(layer),
    }


def _cropping(layer: Any) -> Pixels:
    """What a transposed convolution cuts off before and after each axis; below zero, what it adds."""
    pairs = []
    for span, stride in zip(spans(layer.kernel_size, layer.dilation_rate), layer.strides, strict=True):
        total = span - stride if layer.padding == "same" else min(span - stride, 0)
        before = max(total, 0) // 2
        pairs.append([before, total - before])
    return pairs


def padding(kind: str, shape: Shape, reach: Sequence[int], strides: Sequence[int]) -> Pixels:
    """What `same` adds before and after each axis, the odd pixel behind; `causal` adds all of it before.

    shape: of the batch, channels last. reach: how many pixels a kernel or a window spans along each axis.
    """
    if kind == "causal":
        return [[span - 1, 0] for span in reach]
    if kind != "same":
        return [[0, 0]] * len(strides)
    pairs = []
    for size, span, stride in zip(shape[1:-1], reach, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        pairs.append([total // 2, total - total // 2])
    return pairs


def spans(sizes: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """How many pixels a kernel spans along each axis."""
    return [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]


def _depthwise_weights(layer: Any) -> Weights:
    return _viewed(own_weights(layer), kernel="kernel", bias="bias")


def _separable_weights(layer: Any) -> Weights:
    return _viewed(own_weights(layer), pointwise_kernel="kernel", bias="bias")


def _first_half(layer: Any) -> Weights:
    return _viewed(own_weights(layer), depthwise_kernel="kernel")


def _viewed(weights: Weights, **names: str) -> Weights:
    """Those of some weights by `Keras's name = name here`, depthwise kernels as torch has them."""
    depthwise = {"kernel", "depthwise_kernel"} & names.keys()
    return {
        name: type(weights[own])(weights[own].variable, _grouped if own in depthwise else weights[own].view)
        for own, name in names.items()
        if own in weights
    }


def _grouped(kernel: np.ndarray) -> np.ndarray:
    """A depthwise kernel (space..., in, multiplier) as a grouped one, (space..., 1, out)."""
    return kernel.reshape(*kernel.shape[:-2], 1, -1)


TABLE = (
    LayerType(_kind, (layers.Conv1D, layers.Conv2D, layers.Conv3D), _settings),
    LayerType(_kind, DEPTHWISE, _in_groups, _depthwise_weights),
    LayerType(
        _kind,
        SEPARABLE,
        _pointwise,
        _separable_weights,
        before=lambda layer: {"depthwise": LayerType(_kind, settings=_in_groups, weights=_first_half)},
    ),
    LayerType(lambda layer: f"Conv{layer.rank}DTranspose", TRANSPOSED, _transposed),
)
