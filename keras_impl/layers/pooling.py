"""Pooling over windows, over all of space, and to a given size."""

from __future__ import annotations

from typing import Any

from keras import layers

from keras_impl.layers.convolution import padding
from keras_impl.layers.layer_type import LayerType, Settings, Shape

SIZES = (1, 2, 3)


def _settings(layer: Any, shape: Shape) -> Settings:
    settings: Settings = {"pool_size": list(layer.pool_size), "strides": list(layer.strides)}
    if shape:
        settings["padding"] = padding(layer.padding, shape, layer.pool_size, layer.strides)
    return settings


def _average(layer: Any, shape: Shape) -> Settings:
    settings = _settings(layer, shape)
    # Where nothing is padded there is nothing to count.
    padded = any(map(any, settings.get("padding", ())))
    return settings | ({"count_include_pad": False} if padded else {})


def _flat(layer: Any, output: Any) -> Any:
    """(N, C), whether its axes are kept or not."""
    return output.reshape(output.shape[0], -1)


def _adaptive_kind(layer: Any) -> str:
    name = type(layer).__name__
    return name.replace("Adaptive", "Global") if _is_global(layer) else name


def _is_global(layer: Any) -> bool:
    return all(size == 1 for size in layer.output_size)


def _adaptive_settings(layer: Any, shape: Shape) -> Settings:
    return {} if _is_global(layer) else {"output_size": list(layer.output_size)}


def _adaptive_output(layer: Any, output: Any) -> Any:
    return _flat(layer, output) if _is_global(layer) else output


def _classes(name: str) -> tuple[type, ...]:
    return tuple(getattr(layers, f"{name}{size}D") for size in SIZES)


def _own_name(layer: Any) -> str:
    return next(cls.__name__ for cls in type(layer).__mro__ if cls.__module__.startswith("keras."))


TABLE = (
    LayerType(_own_name, _classes("MaxPooling"), _settings),
    LayerType(_own_name, _classes("AveragePooling"), _average),
    LayerType(_own_name, _classes("GlobalMaxPooling"), output=_flat),
    LayerType(_own_name, _classes("GlobalAveragePooling"), output=_flat),
    *(
        LayerType(
            _adaptive_kind, _classes(f"Adaptive{which}Pooling"), _adaptive_settings, output=_adaptive_output
        )
        for which in ("Max", "Average")
    ),
)
