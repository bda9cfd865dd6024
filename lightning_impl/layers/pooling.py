"""Pooling over windows, over all of space, and to a given size."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from experiment.protocols.graph import Layer
from lightning_impl.layers.layer_type import Call, LayerType, Settings, each
from lightning_impl.layers.source import (
    BEHIND,
    CallOf,
    Code,
    Expression,
    Module,
    Piece,
    SourceRule,
    Untranslatable,
    channels_last,
    even,
    pad,
    same_padding,
)


def _pool(dimensions: int, size: Any, stride: Any, padding: Any) -> Settings:
    return {
        "pool_size": each(size, dimensions),
        "strides": each(size if stride in (None, ()) else stride, dimensions),
        "padding": [[pixels, pixels] for pixels in each(padding, dimensions)],
    }


def _dimensions(layer: Any) -> int:
    """1 to 3, from the name of a module's class or of a function: MaxPool2d, max_pool2d."""
    names = [layer.name] if isinstance(layer, Call) else [kind.__name__ for kind in type(layer).__mro__]
    return next(int(name[-2]) for name in names if name.endswith(("1d", "2d", "3d")))


def _settings(layer: Any) -> Settings:
    return _pool(_dimensions(layer), layer.kernel_size, layer.stride, layer.padding)


def _of_call(call: Call) -> Settings:
    size, stride = call.argument(1, "kernel_size"), call.argument(2, "stride")
    return _pool(_dimensions(call), size, stride, call.argument(3, "padding", 0))


def _average(layer: Any) -> Settings:
    return _counting(_settings(layer), layer.count_include_pad)


def _of_average_call(call: Call) -> Settings:
    return _counting(_of_call(call), call.argument(5, "count_include_pad", True))


def _counting(settings: Settings, include: bool) -> Settings:
    """With the zeros that are added counted in the average or not, where any are."""
    padded = any(map(any, settings["padding"]))
    return settings | ({"count_include_pad": bool(include)} if padded else {})


def _adaptive_kind(which: str, layer: Any) -> str:
    whole = f"Global{which}Pooling{_dimensions(layer)}D"
    return whole if all(size == 1 for size in _size(layer)) else whole.replace("Global", "Adaptive")


def _size(layer: Any) -> list[Any]:
    size = layer.argument(1, "output_size") if isinstance(layer, Call) else layer.output_size
    return each(size, _dimensions(layer))


def _adaptive_settings(layer: Any) -> Settings:
    size = _size(layer)
    return {} if all(length == 1 for length in size) else {"output_size": size}


def _is_global(call: Call) -> bool:
    """Whether a reduction leaves the batch and the channels alone."""
    if len(call.shapes[0]) < 3:
        return False
    whole = (call.shapes[0][0], call.shapes[0][call.axis])
    return tuple(size for i, size in enumerate(call.output) if i < 2 or size > 1) == whole


TABLE = (
    LayerType(
        lambda layer: f"MaxPooling{_dimensions(layer)}D",
        (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        ("max_pool1d", "max_pool2d", "max_pool3d"),
        settings=_settings,
        of_call=_of_call,
        channels=1,
    ),
    LayerType(
        lambda layer: f"AveragePooling{_dimensions(layer)}D",
        (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        ("avg_pool1d", "avg_pool2d", "avg_pool3d"),
        settings=_average,
        of_call=_of_average_call,
        channels=1,
    ),
    # Of packages that were written from a Keras model; how much it pads hangs on its input.
    LayerType(
        lambda layer: f"AveragePooling{len(layer.pool_size)}D",
        named=("SameAveragePool",),
        settings=lambda layer: {"pool_size": list(layer.pool_size), "strides": list(layer.stride)},
        channels=1,
    ),
    LayerType(
        partial(_adaptive_kind, "Max"),
        (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
        ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
        settings=_adaptive_settings,
        of_call=_adaptive_settings,
        channels=1,
    ),
    LayerType(
        partial(_adaptive_kind, "Average"),
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
        settings=_adaptive_settings,
        of_call=_adaptive_settings,
        channels=1,
    ),
    LayerType(
        lambda call: f"GlobalMaxPooling{len(call.shapes[0]) - 2}D", functions=("amax",), is_layer=_is_global
    ),
    LayerType(
        lambda call: f"GlobalAveragePooling{len(call.shapes[0]) - 2}D",
        functions=("mean",),
        is_layer=_is_global,
    ),
)


# === Source ===


def _source(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    settings, size = layer.settings, layer.settings["pool_size"]
    strides = settings["strides"] or size
    maximum = layer.kind.startswith("Max")
    args: dict[str, Any] = {"*kernel_size": even(size)} | (
        {} if strides == size else {"stride": even(strides)}
    )
    name = f"nn.{'Max' if maximum else 'Avg'}Pool{len(size)}d"
    if settings["padding"] != "same":
        return [Module(name, args)]
    pairs = same_padding(call.input.space, size, strides)
    if pairs is not None and all(pair == (0, 0) for pair in pairs):
        return [Module(name, args)]
    if pairs is not None and all(a == b and a <= k // 2 for (a, b), k in zip(pairs, size, strict=True)):
        args |= {"padding": even([a for a, _ in pairs])}
        if maximum:
            return [Module(name, args)]
        args |= {"count_include_pad": False}
        return [Module(name, args, comment="Keras averages over the pixels that are there")]
    if not maximum:
        args = {"*pool_size": tuple(size)} | ({} if strides == size else {"*stride": tuple(strides)})
        return [Module("SameAveragePool", args, comment="Keras averages over the pixels that are there")]
    if pairs is None:
        before = Module(
            "SamePad", {"*reach": even(size), "*stride": even(strides), "value": Code('float("-inf")')}, "pad"
        )
        return [before, Module(name, args)]
    return [pad(pairs, comment=BEHIND, value='float("-inf")'), Module(name, args)]


def _global(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    average, keep = "Average" in layer.kind, layer.settings.get("keepdims", False)
    value = call.input
    if "mask" in call.kwargs:
        if not average or keep or value.rank != 3:
            raise Untranslatable("it is given a mask")
        mask = call.kwargs["mask"]
        kept = f"{mask}[..., None].to({{0}})"
        return [Expression(f"({{0}} * {kept}).sum(1) / {kept}.sum(1)")]
    dims = list(range(2, value.rank)) if value.first else list(range(1, value.rank - 1))
    dim = dims[0] if len(dims) == 1 else tuple(dims)
    text = f"{{0}}.{'mean' if average else 'amax'}({dim}{', keepdim=True' if keep else ''})"
    args = {"*dim": dim, **({"keepdim": True} if keep else {})}
    return [Expression(text, Module(f"Global{'Average' if average else 'Max'}Pooling", args))]


def _adaptive_source(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    size = layer.settings["output_size"]
    which = "Max" if "Max" in layer.kind else "Avg"
    sizes = size if isinstance(size, list) else [size]
    return [Module(f"nn.Adaptive{which}Pool{layer.kind[-2]}d", {"*output_size": even(sizes)})]


SOURCES = {
    **{
        f"{which}Pooling{n}D": SourceRule(_source, "first") for which in ("Max", "Average") for n in (1, 2, 3)
    },
    **{f"Global{which}Pooling{n}D": SourceRule(_global) for which in ("Max", "Average") for n in (1, 2, 3)},
    **{
        f"Adaptive{which}Pooling{n}D": SourceRule(_adaptive_source, "first")
        for which in ("Max", "Average")
        for n in (1, 2, 3)
    },
}
