"""Layers that act in training alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_impl.dropout import Dropout, SharedDropout
from lightning_impl.layers.layer_type import Call, LayerType, Settings


def _rate(layer: Any) -> Settings:
    return {"rate": layer.p}


def _path_rate(layer: Any) -> Settings:
    rate = getattr(layer, "p", getattr(layer, "drop_prob", None))
    return {} if rate is None else {"rate": rate}


def _of_call(call: Call) -> Settings:
    return {"rate": call.argument(1, "p", 0.5)}


def _dropout(kind: str, function: str, *classes: type[nn.Module]) -> LayerType:
    return LayerType(kind, classes, (function,), settings=_rate, of_call=_of_call, random=True)


TABLE = (
    _dropout("Dropout", "dropout", nn.Dropout, Dropout),
    LayerType("Dropout", (SharedDropout,), settings=lambda layer: {"rate": layer.rate}, random=True),
    _dropout("SpatialDropout1D", "dropout1d", nn.Dropout1d),
    _dropout("SpatialDropout2D", "dropout2d", nn.Dropout2d),
    _dropout("SpatialDropout3D", "dropout3d", nn.Dropout3d),
    _dropout("AlphaDropout", "alpha_dropout", nn.AlphaDropout, nn.FeatureAlphaDropout),
    # torchvision's, timm's and a user's own.
    LayerType("StochasticDepth", named=("StochasticDepth", "DropPath"), settings=_path_rate, random=True),
)
