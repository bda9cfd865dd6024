"""Convolutions and transposed convolutions, of one to three dimensions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from experiment.protocols.graph import Layer
from lightning_impl.layers.activation import module_of
from lightning_impl.layers.layer_type import Call, LayerType, Pixels, Settings, Weights, each, own
from lightning_impl.layers.source import (
    BEHIND,
    CallOf,
    Module,
    Piece,
    SourceRule,
    channels_last,
    constrained,
    even,
    pad,
    same_padding,
    without,
)

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
        positions=lambda call: {"weight": 1, "bias": 2},
        channels=1,
    ),
    LayerType(
        _transposed_kind,
        TRANSPOSED,
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        settings=_transposed_settings,
        weights=_weights,
        of_call=_of_transposed_call,
        positions=lambda call: {"weight": 1, "bias": 2},
        channels=1,
    ),
)


# === Source ===


def _source(layer: Layer, call: CallOf) -> list[Piece]:
    settings, size = _checked(layer), layer.settings["kernel_size"]
    depthwise = layer.kind.startswith("Depthwise")
    channels = call.input.channels
    filters = channels * settings["depth_multiplier"] if depthwise else settings["filters"]
    groups = channels if depthwise else settings["groups"]
    pieces = _convolution(layer, call, channels, filters, groups, size)
    return [*pieces, *module_of(settings["activation"], call.output)]


def _convolution(
    layer: Layer, call: CallOf, channels: int, filters: int, groups: int, size: Any, **more: Any
) -> list[Piece]:
    settings, before = layer.settings, []
    strides, dilation = settings["strides"], settings["dilation_rate"]
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    padding: Any = 0
    comment = ""
    if settings["padding"] == "causal":
        before = [pad([(reach[0] - 1, 0)], comment="causal: no step sees a later one")]
    elif settings["padding"] == "same":
        pairs = same_padding(call.input.space, reach, strides)
        if pairs is None:
            args = {"*reach": even(reach), "*stride": even(strides)}
            before = [Module("SamePad", args, "pad", BEHIND)]
        elif all(a == b for a, b in pairs):
            padding = even([a for a, _ in pairs])
        elif set(strides) == {1}:
            padding, comment = "same", "an even kernel: the odd pixel is padded behind"
        else:
            before = [pad(pairs, comment=BEHIND)]
    args = {"*in_channels": channels, "*out_channels": filters, "kernel_size": even(size)}
    args |= without(
        {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True},
        stride=even(strides),
        padding=padding,
        dilation=even(dilation),
        groups=groups,
        bias=bool(settings["use_bias"] and more.get("bias", True)),
    )
    main = Module(f"nn.Conv{len(size)}d", args, more.get("suffix", ""), comment, more.get("part"))
    return [*before, main]


def _separable(layer: Layer, call: CallOf) -> list[Piece]:
    settings, size = _checked(layer), layer.settings["kernel_size"]
    channels = call.input.channels
    middle = channels * settings["depth_multiplier"]
    first = _convolution(
        layer, call, channels, middle, channels, size, bias=False, suffix="depthwise", part="depthwise"
    )
    args = {"*in_channels": middle, "*out_channels": settings["filters"], "kernel_size": 1}
    args |= without({"bias": True}, bias=settings["use_bias"])
    second = Module(f"nn.Conv{len(size)}d", args, "pointwise", part="")
    return [*first, second, *module_of(settings["activation"], call.output)]


def _transposed(layer: Layer, call: CallOf) -> list[Piece]:
    settings, size = _checked(layer), layer.settings["kernel_size"]
    strides, dilation = settings["strides"], settings["dilation_rate"]
    added = settings.get("output_padding") or [None] * len(size)
    padding, more, crop = [], [], []
    for k, stride, spread, extra in zip(size, strides, dilation, added, strict=True):
        reach, same = (k - 1) * spread + 1, settings["padding"] == "same"
        if extra is None:
            total = reach - stride if same else min(reach - stride, 0)
        else:
            total = 2 * (reach // 2) - extra if same else -extra
        before = max(total, 0) // 2
        behind = total - before
        padding.append(before)
        more.append(max(before - behind, 0))
        crop.append((0, -max(behind - before, 0)))
    args = {
        "*in_channels": call.input.channels,
        "*out_channels": settings["filters"],
        "kernel_size": even(size),
    }
    args |= without(
        {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "bias": True, "dilation": 1},
        stride=even(strides),
        padding=even(padding),
        output_padding=even(more),
        groups=settings.get("groups", 1),
        bias=settings["use_bias"],
        dilation=even(dilation),
    )
    pieces: list[Piece] = [Module(f"nn.ConvTranspose{len(size)}d", args)]
    if any(behind for _, behind in crop):
        pieces.append(pad(crop, "crop", "Keras cuts the odd pixel off behind"))
    return [*pieces, *module_of(settings["activation"], call.output)]


def _checked(layer: Layer) -> Settings:
    channels_last(layer)
    constrained(layer)
    return layer.settings


SOURCES = {
    **{f"Conv{n}D": SourceRule(_source, "first") for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": SourceRule(_source, "first") for n in (1, 2)},
    **{f"SeparableConv{n}D": SourceRule(_separable, "first") for n in (1, 2)},
    **{f"Conv{n}DTranspose": SourceRule(_transposed, "first") for n in (1, 2, 3)},
}
