"""Preprocessing that stands in a model: arithmetic with constants, which in torch is no layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiment.protocols.graph import Layer
from lightning_impl.layers.layer_type import LayerType
from lightning_impl.layers.source import (
    CallOf,
    Code,
    Module,
    Piece,
    Rule,
    SourceRule,
    Untranslatable,
    without,
)

TABLE: tuple[LayerType, ...] = ()


# === Source ===


def _rescaling(layer: Layer, call: CallOf) -> list[Piece]:
    scale, offset = layer.settings["scale"], layer.settings["offset"]
    if isinstance(scale, list) or isinstance(offset, list):
        many = (isinstance(scale, list) and len(scale)) or len(offset)
        scale = tuple(scale) if isinstance(scale, list) else (scale,) * many
        offset = tuple(offset) if isinstance(offset, list) else (offset,) * many
        return [Module("Rescaling", {"*scale": scale, "*offset": offset, "axis": call.input.dim(-1)})]
    args = {"*scale": _fraction(scale)} | without({"offset": 0.0}, offset=offset)
    return [Module("Rescaling", args)]


def _fraction(scale: float) -> Any:
    """A scale as a person writes it: 1 / 255."""
    if scale and abs(scale) < 1 and 1 / scale == round(1 / scale, 1):
        whole = 1 / scale
        text = str(int(whole)) if whole == int(whole) else str(whole)
        if _over(text) == scale:
            return Code(f"1 / {text}")
    return scale


def _over(text: str) -> float:
    """One over a number that is written down."""
    return 1 / float(text)


def _normalization(layer: Layer, call: CallOf) -> list[Piece]:
    settings, value = layer.settings, call.input
    if settings.get("mean") is None:
        raise Untranslatable("it was not adapted to data: it has no mean")
    axes = settings["axis"] if isinstance(settings["axis"], list) else [settings["axis"]]
    axes = [axis for axis in axes if axis is not None]
    if [axis % value.rank for axis in axes] not in ([], [value.rank - 1]):
        raise Untranslatable(f"it normalises axes {axes}, which are not that of the channels")
    mean, variance = (_numbers(settings[key]) for key in ("mean", "variance"))
    args = {"*mean": mean, "*variance": variance}
    args |= {"axis": dim} if axes and (dim := value.dim(-1)) != 1 else {}
    args |= {"invert": True} if settings.get("invert") else {}
    return [Module("Normalization", args, comment="Keras divides by the root of a variance")]


def _numbers(values: Any) -> tuple[float, ...]:
    """Numbers as a person gave them, without what arithmetic left in their last digits."""
    return tuple(float(f"{value:.15g}") for value in np.ravel(values))


def _flip(layer: Layer, call: CallOf) -> list[Piece]:
    return [Module("RandomFlip", without({"mode": "horizontal_and_vertical"}, mode=layer.settings["mode"]))]


def _range(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _random(*names: str) -> Rule:
    def rule(layer: Layer, call: CallOf) -> list[Piece]:
        settings = layer.settings
        args = {f"*{name}": _range(settings[name]) for name in names if settings.get(name) is not None}
        if settings.get("interpolation", "bilinear") != "bilinear":
            raise Untranslatable(
                f"its interpolation is {settings['interpolation']}, and only bilinear is written"
            )
        args |= without({"fill_mode": "reflect"}, fill_mode=settings.get("fill_mode", "reflect"))
        args |= without({"fill_value": 0.0}, fill_value=settings.get("fill_value", 0.0))
        return [Module(layer.kind, args)]

    return rule


def _random_values(name: str) -> Rule:
    def rule(layer: Layer, call: CallOf) -> list[Piece]:
        settings = layer.settings
        low, high = settings.get("value_range", (0, 255))
        args = {f"*{name}": _range(settings[name])}
        args |= without({"value_range": (0, 255)}, value_range=(low, high))
        return [Module(layer.kind, args)]

    return rule


SOURCES = {
    "Rescaling": SourceRule(_rescaling),
    "Normalization": SourceRule(_normalization),
    "RandomFlip": SourceRule(_flip, "first"),
    "RandomRotation": SourceRule(_random("factor"), "first"),
    "RandomTranslation": SourceRule(_random("height_factor", "width_factor"), "first"),
    "RandomZoom": SourceRule(_random("height_factor", "width_factor"), "first"),
    "RandomContrast": SourceRule(_random_values("factor"), "first"),
    "RandomBrightness": SourceRule(_random_values("factor"), "first"),
}
