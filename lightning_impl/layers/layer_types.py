"""What a layer does and with which settings, in Keras's words on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

Pixels = Sequence[Sequence[int]]  # before and after each axis of space

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)
ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
DROPOUTS = {nn.Dropout: "Dropout", nn.Dropout1d: "SpatialDropout1D", nn.Dropout2d: "SpatialDropout2D"}

# What Keras calls layers; an activation's kind is Keras's name of its function.
KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "Dense",
    nn.LayerNorm: "LayerNormalization",
    nn.GroupNorm: "GroupNormalization",
    nn.Embedding: "Embedding",
    nn.MaxPool1d: "MaxPooling1D",
    nn.MaxPool2d: "MaxPooling2D",
    nn.AvgPool1d: "AveragePooling1D",
    nn.AvgPool2d: "AveragePooling2D",
    nn.Flatten: "Flatten",
    nn.ReLU6: "relu6",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hard_silu",
    nn.Hardsigmoid: "hard_sigmoid",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
    nn.ConstantPad2d: "ZeroPadding2D",
    nn.Upsample: "UpSampling2D",
    **DROPOUTS,
}

# Functions that stand for a layer where no module does, by their names.
FUNCTIONS = {
    **{name: name for name in ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish")},
    **{name: name for name in ("sigmoid", "tanh", "softplus", "softsign", "softmax", "log_softmax")},
    "relu_": "relu",
    "sigmoid_": "sigmoid",
    "tanh_": "tanh",
    "hardswish": "hard_silu",
    "hardsigmoid": "hard_sigmoid",
    "add": "Add",
    "add_": "Add",
    "mul": "Multiply",
    "mul_": "Multiply",
    "cat": "Concatenate",
    "concat": "Concatenate",
    "concatenate": "Concatenate",
    "max_pool1d": "MaxPooling1D",
    "max_pool2d": "MaxPooling2D",
    "avg_pool1d": "AveragePooling1D",
    "avg_pool2d": "AveragePooling2D",
    "flatten": "Flatten",
    "dropout": "Dropout",
    "interpolate": "UpSampling2D",
}
MERGES = ("Add", "Multiply")
GLOBAL = {"mean": "Average", "amax": "Max", "adaptive_avg_pool2d": "Average", "adaptive_max_pool2d": "Max"}


def kind(layer: nn.Module) -> str:
    """Keras's name for what a layer does; its class name where the table has none."""
    if isinstance(layer, CONVOLUTIONS):
        return f"Conv{len(layer.kernel_size)}D"
    if isinstance(layer, TRANSPOSED):
        return f"Conv{len(layer.kernel_size)}DTranspose"
    if isinstance(layer, BATCH_NORMS):
        return "BatchNormalization"
    if isinstance(
        layer, nn.AdaptiveAvgPool1d | nn.AdaptiveMaxPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d
    ):
        name = type(layer).__name__
        which = "Average" if "Avg" in name else "Max"
        whole = layer.output_size in (1, (1,), (1, 1))
        return f"Global{which}Pooling{name[-2]}D" if whole else name
    for parent, name in KINDS.items():
        if isinstance(layer, parent):
            return name
    return type(layer).__name__.removeprefix("Shared")


def settings(layer: nn.Module, padded: Pixels = ()) -> dict[str, Any]:
    """What of a layer's settings changes its numbers, under Keras's names and with Keras's meaning.

    padded: the zeros that a function or layer before this one put around its input.
    """
    if isinstance(layer, CONVOLUTIONS):
        return {
            "strides": list(layer.stride),
            "dilation": list(layer.dilation),
            "groups": layer.groups,
            "padding": _sum(_padding(layer), padded),
        }
    if isinstance(layer, TRANSPOSED):
        cut: Any = zip(layer.padding, layer.output_padding, strict=True)
        return {
            "strides": list(layer.stride),
            "dilation": list(layer.dilation),
            "groups": layer.groups,
            "cropping": [[before, before - less] for before, less in cut],
        }
    if isinstance(layer, BATCH_NORMS):
        momentum = None if layer.momentum is None else 1 - layer.momentum
        return {"epsilon": layer.eps, "momentum": momentum}
    if isinstance(layer, nn.LayerNorm):
        return {"epsilon": layer.eps}
    if isinstance(layer, nn.GroupNorm):
        return {"epsilon": layer.eps, "groups": layer.num_groups}
    if isinstance(layer, POOLS):
        stride = layer.kernel_size if layer.stride is None else layer.stride
        return _pool(int(kind(layer)[-2]), layer.kernel_size, stride, layer.padding, padded)
    if isinstance(layer, nn.LeakyReLU):
        return {"negative_slope": layer.negative_slope}
    if isinstance(layer, nn.GELU):
        return {"approximate": layer.approximate == "tanh"}
    if "Dropout" in kind(layer):
        return {"rate": layer.p if isinstance(layer, tuple(DROPOUTS)) else getattr(layer, "rate", None)}
    return {}


def function_kind(
    function: Callable, axis: int, shapes: Sequence[Sequence[int]], output: Sequence[int]
) -> str | None:
    """Keras's name for what a function of tensors does, or None for what is no layer.

    axis: of the first tensor's channels. shapes: of the tensors that it was given. output: of its result.
    """
    name = getattr(function, "__name__", "")
    if name in GLOBAL and len(shapes[0]) > 2:
        whole = (shapes[0][0], shapes[0][axis])
        left = tuple(size for i, size in enumerate(output) if i < 2 or size > 1)
        return f"Global{GLOBAL[name]}Pooling{len(shapes[0]) - 2}D" if left == whole else None
    which = FUNCTIONS.get(name)
    if which in MERGES and (
        len(shapes) != 2 or len(shapes[0]) != len(shapes[1]) or shapes[0][0] != shapes[1][0]
    ):
        return None  # with a constant or a parameter
    return which


def function_settings(
    function: Callable, args: Sequence[Any], kwargs: dict[str, Any], padded: Pixels = ()
) -> dict[str, Any]:
    """What of a function's arguments changes its numbers; as `settings`."""

    def given(position: int, name: str, default: Any) -> Any:
        return args[position] if len(args) > position else kwargs.get(name, default)

    match getattr(function, "__name__", ""):
        case "dropout":
            return {"rate": given(1, "p", 0.5)}
        case "leaky_relu":
            return {"negative_slope": given(1, "negative_slope", 0.01)}
        case "gelu":
            return {"approximate": kwargs.get("approximate", "none") == "tanh"}
        case "max_pool1d" | "max_pool2d" | "avg_pool1d" | "avg_pool2d" as name:
            size = given(1, "kernel_size", None)
            return _pool(
                int(name[-2]), size, given(2, "stride", None) or size, given(3, "padding", 0), padded
            )
    return {}


def _padding(layer: Any) -> Pixels:
    """Pixels that a convolution adds before and after each axis; `same` adds the odd one behind."""
    if layer.padding != "same":
        return [[0, 0] if layer.padding == "valid" else [p, p] for p in layer.padding]
    totals = [(k - 1) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    return [[total // 2, total - total // 2] for total in totals]


def _pool(dimensions: int, size: Any, stride: Any, padding: Any, padded: Pixels) -> dict[str, Any]:
    return {
        "pool_size": _each(size, dimensions),
        "strides": _each(stride, dimensions),
        "padding": _sum([[pixels, pixels] for pixels in _each(padding, dimensions)], padded),
    }


def _sum(pairs: Pixels, padded: Pixels) -> Pixels:
    """What a layer adds to each side, and what was added before it."""
    return [[a + c, b + d] for (a, b), (c, d) in zip(pairs, padded or [[0, 0]] * len(pairs), strict=True)]


def _each(value: Any, dimensions: int) -> list[int]:
    return list(value) if isinstance(value, tuple | list) else [value] * dimensions
