"""Layers that act in training alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_impl.dropout import SharedDropout
from lightning_impl.layers.layer_type import Call, LayerType, Settings


def _rate(layer: Any) -> Settings:
    return {"rate": layer.p}


def _of_call(call: Call) -> Settings:
    return {"rate": call.argument(1, "p", 0.5)}


TABLE = (
    LayerType("Dropout", (nn.Dropout,), ("dropout",), settings=_rate, of_call=_of_call),
    LayerType("Dropout", (SharedDropout,), settings=lambda layer: {"rate": layer.rate}),
    LayerType("SpatialDropout1D", (nn.Dropout1d,), ("dropout1d",), settings=_rate, of_call=_of_call),
    LayerType("SpatialDropout2D", (nn.Dropout2d,), ("dropout2d",), settings=_rate, of_call=_of_call),
)
