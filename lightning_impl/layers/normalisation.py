"""Normalisation over the batch, over features and over groups of channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lightning_impl.layers.layer_type import Call, LayerType, Settings, Weights, own

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _batch_norm(layer: Any) -> Settings:
    momentum = None if layer.momentum is None else 1 - layer.momentum
    return {"epsilon": layer.eps, "momentum": momentum}


def _statistics(layer: Any) -> Weights:
    statistics = own(layer, running_mean="moving_mean", running_var="moving_variance")
    return _by_row(own(layer, weight="gamma", bias="beta") | statistics)


def _layer_norm(layer: Any) -> Weights:
    return _by_row(own(layer, _channels_last, weight="gamma", bias="beta"))


def _channels_last(weight: Tensor) -> Tensor:
    return weight.movedim(0, -1)  # (C, H, W); of one axis nothing moves


def _by_row(weights: Weights) -> Weights:
    """With one number for each feature of flattened images."""
    return {name: replace(weight, by_row=True) for name, weight in weights.items()}


def _epsilon(call: Call) -> Settings:
    position = {"batch_norm": 7, "layer_norm": 4, "group_norm": 4, "rms_norm": 3}[call.name]
    settings = {"epsilon": call.argument(position, "eps", None if call.name == "rms_norm" else 1e-5)}
    return settings | ({"groups": call.argument(1, "num_groups")} if call.name == "group_norm" else {})


TABLE = (
    LayerType(
        "BatchNormalization",
        BATCH_NORMS,
        ("batch_norm",),
        settings=_batch_norm,
        weights=_statistics,
        of_call=_epsilon,
        channels=1,
    ),
    LayerType(
        "LayerNormalization",
        (nn.LayerNorm,),
        ("layer_norm",),
        settings=lambda layer: {"epsilon": layer.eps},
        weights=_layer_norm,
        of_call=_epsilon,
    ),
    LayerType(
        "GroupNormalization",
        (nn.GroupNorm,),
        ("group_norm",),
        settings=lambda layer: {"epsilon": layer.eps, "groups": layer.num_groups},
        weights=lambda layer: own(layer, weight="gamma", bias="beta"),
        of_call=_epsilon,
        channels=1,
    ),
)
