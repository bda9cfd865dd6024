"""Layers that act in training alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from experiment.protocols.graph import Layer
from lightning_impl.dropout import Dropout, SharedDropout
from lightning_impl.layers.layer_type import Call, LayerType, Settings
from lightning_impl.layers.source import (
    CallOf,
    Expression,
    Module,
    Piece,
    Rule,
    SourceRule,
    Untranslatable,
    channels_last,
)

OF_IMAGES = (
    *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"),
    *("RandomContrast", "RandomBrightness"),
)


def _rate(layer: Any) -> Settings:
    return {"rate": layer.p}


def _own_rate(layer: Any) -> Settings:
    return {"rate": layer.rate} if hasattr(layer, "rate") else {}


def _deviation(layer: Any) -> Settings:
    return {"stddev": layer.stddev} if hasattr(layer, "stddev") else {}


def _path_rate(layer: Any) -> Settings:
    rate = next((getattr(layer, name) for name in ("p", "drop_prob", "rate") if hasattr(layer, name)), None)
    return {} if rate is None else {"rate": rate}


def _of_call(call: Call) -> Settings:
    """As a call in evaluation says: by default torch's functions drop in it, too."""
    always = {"evaluating": True} if call.argument(2, "training", True) else {}
    return {"rate": call.argument(1, "p", 0.5), **always}


def _dropout(kind: str, function: str, *classes: type[nn.Module]) -> LayerType:
    return LayerType(kind, classes, (function,), settings=_rate, of_call=_of_call, random=True)


TABLE = (
    _dropout("Dropout", "dropout", nn.Dropout, Dropout),
    LayerType("Dropout", (SharedDropout,), settings=lambda layer: {"rate": layer.rate}, random=True),
    _dropout("SpatialDropout1D", "dropout1d", nn.Dropout1d),
    _dropout("SpatialDropout2D", "dropout2d", nn.Dropout2d),
    _dropout("SpatialDropout3D", "dropout3d", nn.Dropout3d),
    _dropout("AlphaDropout", "alpha_dropout", nn.AlphaDropout, nn.FeatureAlphaDropout),
    # What packages that were written from a Keras model bring of their own.
    LayerType("GaussianNoise", named=("GaussianNoise",), settings=_deviation, random=True),
    LayerType("GaussianDropout", named=("GaussianDropout",), settings=_own_rate, random=True),
    *(LayerType(kind, named=(kind,), random=True) for kind in OF_IMAGES),
    # torchvision's, timm's and a user's own.
    LayerType("StochasticDepth", named=("StochasticDepth", "DropPath"), settings=_path_rate, random=True),
)


# === Source ===


def _plain_dropout(layer: Layer, call: CallOf) -> list[Piece]:
    rate, shape = layer.settings["rate"], layer.settings.get("noise_shape")
    if shape is None:
        return [Module("nn.Dropout", {"*p": rate})]
    if all(size == 1 for size in shape[1:]) and shape[0] in (None, call.input.shape[0]):
        return [Module("DropPath", {"*rate": rate}, comment="drops whole samples")]
    raise Untranslatable(f"its noise_shape {shape} is neither one number a sample nor one an element")


def _spatial(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    return [Module(f"nn.Dropout{layer.kind[-2]}d", {"*p": layer.settings["rate"]})]


def _noise(name: str) -> Rule:
    def rule(layer: Layer, call: CallOf) -> list[Piece]:
        return [Module(layer.kind, {f"*{name}": layer.settings[name]})]

    return rule


def _nothing(layer: Layer, call: CallOf) -> list[Piece]:
    return [Expression("{0}", Module("nn.Identity"))]


SOURCES = {
    "Dropout": SourceRule(_plain_dropout),
    **{f"SpatialDropout{n}D": SourceRule(_spatial, "first") for n in (1, 2, 3)},
    "GaussianNoise": SourceRule(_noise("stddev")),
    "GaussianDropout": SourceRule(_noise("rate")),
    "AlphaDropout": SourceRule(
        lambda layer, call: [Module("nn.AlphaDropout", {"*p": layer.settings["rate"]})]
    ),
    "StochasticDepth": SourceRule(_noise("rate")),
    "ActivityRegularization": SourceRule(_nothing),
    "Identity": SourceRule(_nothing),
}
SOURCES["StochasticDepth"] = SourceRule(
    lambda layer, call: [Module("DropPath", {"*rate": layer.settings["rate"]}, comment="drops whole samples")]
)
