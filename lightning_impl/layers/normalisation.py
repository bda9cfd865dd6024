"""Normalisation over the batch, over features and over groups of channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_impl.keras_semantics import BatchNorm
from lightning_impl.layers.layer_type import Call, LayerType, Settings, Weights, own

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


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


def _of_call(place: int, default: float = 1e-5) -> Any:
    """The settings of a call whose epsilon stands at some place."""
    return lambda call: {"epsilon": call.argument(place, "eps", default)}


def _groups_of_call(call: Call) -> Settings:
    return {"epsilon": call.argument(4, "eps", 1e-5), "groups": call.argument(1, "num_groups")}


def _batch_norm_places(call: Call) -> dict[str, int]:
    names = ("running_mean", "running_var", "weight", "bias")
    if call.native:
        names = ("weight", "bias", "running_mean", "running_var")
    return {name: place for place, name in enumerate(names, 1)}


def _rms_epsilon(layer: Any) -> Settings:
    return {"epsilon": torch.finfo(torch.float32).eps if layer.eps is None else layer.eps}


TABLE = (
    LayerType(
        "BatchNormalization",
        (*BATCH_NORMS, nn.SyncBatchNorm, BatchNorm),
        ("batch_norm",),
        settings=_batch_norm,
        weights=_statistics,
        of_call=_of_call(7),
        positions=_batch_norm_places,
        channels=1,
    ),
    LayerType(
        "LayerNormalization",
        (nn.LayerNorm,),
        ("layer_norm",),
        settings=lambda layer: {"epsilon": layer.eps},
        weights=_layer_norm,
        of_call=_of_call(4),
        positions=lambda call: {"weight": 2, "bias": 3},
    ),
    LayerType(
        "GroupNormalization",
        (nn.GroupNorm,),
        ("group_norm",),
        settings=lambda layer: {"epsilon": layer.eps, "groups": layer.num_groups},
        weights=lambda layer: own(layer, weight="gamma", bias="beta"),
        of_call=_groups_of_call,
        positions=lambda call: {"weight": 2, "bias": 3},
        channels=1,
    ),
    # Keras's GroupNormalization with groups of one channel
    LayerType(
        "GroupNormalization",
        INSTANCE_NORMS,
        settings=lambda layer: {"epsilon": layer.eps, "groups": layer.num_features},
        weights=lambda layer: own(layer, weight="gamma", bias="beta"),
        channels=1,
    ),
    LayerType(
        "RMSNormalization",
        (nn.RMSNorm,),
        ("rms_norm",),
        settings=_rms_epsilon,
        weights=lambda layer: own(layer, weight="scale"),
        of_call=_of_call(3),
        positions=lambda call: {"weight": 2},
    ),
    LayerType("UnitNormalization", functions=("normalize",)),
)
