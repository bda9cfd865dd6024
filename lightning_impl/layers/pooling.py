"""Pooling over windows, over all of space, and to a given size."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_impl.layers.layer_type import Call, LayerType, Settings, each

SIZES = (1, 2, 3)


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


def _pooling(which: str, *classes: type[nn.Module]) -> LayerType:
    function = {"Max": "max_pool", "Average": "avg_pool"}[which]
    return LayerType(
        lambda layer: f"{which}Pooling{_dimensions(layer)}D",
        classes,
        tuple(f"{function}{n}d" for n in SIZES),
        settings=_settings,
        of_call=_of_call,
        channels=1,
    )


def _adaptive(which: str, reduction: str, *classes: type[nn.Module]) -> LayerType:
    """Adaptive pooling, and a reduction over all of space: Keras's global pooling where nothing is left."""

    def kind(layer: Any) -> str:
        if isinstance(layer, Call):
            return f"Global{which}Pooling{len(layer.shapes[0]) - 2}D"
        name = type(layer).__name__
        whole = all(size == 1 for size in each(layer.output_size, 1))
        return f"Global{which}Pooling{_dimensions(layer)}D" if whole else name

    function = {"Max": "adaptive_max_pool", "Average": "adaptive_avg_pool"}[which]
    return LayerType(
        kind,
        classes,
        (reduction, *(f"{function}{n}d" for n in SIZES)),
        is_layer=_is_global,
        channels=None,
    )


def _is_global(call: Call) -> bool:
    """Whether a reduction leaves the batch and the channels alone."""
    if len(call.shapes[0]) < 3:
        return False
    whole = (call.shapes[0][0], call.shapes[0][call.axis])
    return tuple(size for i, size in enumerate(call.output) if i < 2 or size > 1) == whole


TABLE = (
    _pooling("Max", nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    _pooling("Average", nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    _adaptive("Max", "amax", nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    _adaptive("Average", "mean", nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
