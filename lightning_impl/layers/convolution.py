"""Convolutions and transposed convolutions, of one to three dimensions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_impl.layers.layer_type import Call, LayerType, Pixels, Settings, Weights, each, own

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _kind(layer: Any) -> str:
    return f"Conv{_dimensions(layer)}D"


def _transposed_kind(layer: Any) -> str:
    return f"Conv{_dimensions(layer)}DTranspose"


def _dimensions(layer: Any) -> int:
    return int(layer.name.removesuffix("d")[-1]) if isinstance(layer, Call) else len(layer.kernel_size)


def _settings(layer: Any) -> Settings:
    return {
        "strides": list(layer.stride),
        "dilation": list(layer.dilation),
        "groups": layer.groups,
        "padding": _padding(layer.padding, layer.kernel_size, layer.dilation),
    }


def _of_call(call: Call) -> Settings:
    size = call.shapes[1][2:]
    dilation = each(call.argument(5, "dilation", 1), len(size))
    padding = call.argument(4, "padding", 0)
    return {
        "strides": each(call.argument(3, "stride", 1), len(size)),
        "dilation": dilation,
        "groups": call.argument(6, "groups", 1),
        "padding": _padding(
            padding if isinstance(padding, str) else each(padding, len(size)), size, dilation
        ),
    }


def _padding(padding: Any, size: Any, dilation: Any) -> Pixels:
    """Pixels that a convolution adds before and after each axis; `same` adds the odd one behind."""
    if padding == "same":
        totals = [(k - 1) * d for k, d in zip(size, dilation, strict=True)]
        return [[total // 2, total - total // 2] for total in totals]
    return [[0, 0]] * len(size) if padding == "valid" else [[p, p] for p in padding]


def _transposed_settings(layer: Any) -> Settings:
    return {
        "strides": list(layer.stride),
        "dilation": list(layer.dilation),
        "groups": layer.groups,
        "cropping": _cropping(layer.padding, layer.output_padding),
    }


def _of_transposed_call(call: Call) -> Settings:
    size = call.shapes[1][2:]
    return {
        "strides": each(call.argument(3, "stride", 1), len(size)),
        "dilation": each(call.argument(7, "dilation", 1), len(size)),
        "groups": call.argument(6, "groups", 1),
        "cropping": _cropping(
            each(call.argument(4, "padding", 0), len(size)),
            each(call.argument(5, "output_padding", 0), len(size)),
        ),
    }


def _cropping(padding: Any, output_padding: Any) -> Pixels:
    return [[cut, cut - less] for cut, less in zip(padding, output_padding, strict=True)]


def _weights(layer: Any) -> Weights:
    return own(layer, _keras_kernel, weight="kernel") | own(layer, bias="bias")


def _keras_kernel(kernel: Tensor) -> Tensor:
    """(out, in, space...) or, transposed, (in, out, space...): the first two turned round and put last."""
    return kernel.permute(*range(2, kernel.dim()), 1, 0)


TABLE = (
    LayerType(
        _kind,
        CONVOLUTIONS,
        ("conv1d", "conv2d", "conv3d"),
        settings=_settings,
        weights=_weights,
        of_call=_of_call,
        channels=1,
    ),
    LayerType(
        _transposed_kind,
        TRANSPOSED,
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        settings=_transposed_settings,
        weights=_weights,
        of_call=_of_transposed_call,
        channels=1,
    ),
)
