"""Normalisation over the batch, over features and over groups of channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from experiment.protocols.graph import Layer
from lightning_impl.keras_semantics import BatchNorm
from lightning_impl.layers.layer_type import Call, LayerType, Settings, Weights, own
from lightning_impl.layers.source import (
    CallOf,
    Module,
    Piece,
    Relaid,
    SourceRule,
    Untranslatable,
    constrained,
    without,
)

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


def _frozen_batch_norm(layer: Any) -> Weights:
    return own(layer, weight="gamma", bias="beta", running_mean="moving_mean", running_var="moving_variance")


TABLE = (
    # torchvision's, whose weights are buffers
    LayerType(
        "BatchNormalization",
        named=("FrozenBatchNorm2d",),
        settings=lambda layer: {"epsilon": layer.eps},
        weights=_frozen_batch_norm,
    ),
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


# === Source ===


def _batch_norm_source(layer: Layer, call: CallOf) -> list[Piece]:
    constrained(layer)
    settings = layer.settings
    if settings["axis"] not in (-1, call.input.rank - 1, [call.input.rank - 1], [-1]):
        raise Untranslatable(f"it normalises axis {settings['axis']}, which is not that of the channels")
    if settings.get("renorm"):
        raise Untranslatable("renorm has no counterpart in torch")
    args = {"*channels": call.input.channels}
    args |= without(
        {"epsilon": 1e-3, "momentum": 0.99, "scale": True, "center": True},
        **{key: settings[key] for key in ("epsilon", "momentum", "scale", "center")},
    )
    return [Module("BatchNorm", args)]


def _layer_norm_source(layer: Layer, call: CallOf) -> list[Piece]:
    constrained(layer)
    settings, rank = layer.settings, call.input.rank
    axes = settings["axis"] if isinstance(settings["axis"], list) else [settings["axis"]]
    axes = sorted(axis % rank for axis in axes)
    sizes = [call.input.shape[axis] for axis in axes]
    if axes != list(range(axes[0], rank)) or None in sizes:
        raise Untranslatable(f"it normalises axes {settings['axis']}: torch's normalises the last ones")
    if len(axes) == rank - 1 > 1:  # over whole images: torch's weights are channels first, as its images are
        if not call.input.first:
            raise Relaid("first")
        sizes = [sizes[-1], *sizes[:-1]]
    elif call.input.first:
        raise Relaid("last")
    shape = sizes[0] if len(sizes) == 1 else tuple(sizes)
    if settings.get("rms_scaling"):
        return [Module("nn.RMSNorm", {"*normalized_shape": shape, "eps": settings["epsilon"]})]
    scale, center = settings["scale"], settings["center"]
    if center and not scale:
        raise Untranslatable("it has an offset and no scale: torch has both, or a scale alone")
    args = {"*normalized_shape": shape, "eps": settings["epsilon"]}
    args |= without({"elementwise_affine": True, "bias": True}, elementwise_affine=scale)
    args |= {"bias": False} if scale and not center else {}
    return [Module("nn.LayerNorm", args, comment="torch's epsilon is 1e-5")]


def _group_norm_source(layer: Layer, call: CallOf) -> list[Piece]:
    constrained(layer)
    settings, channels = layer.settings, call.input.channels
    if settings["scale"] != settings["center"]:
        raise Untranslatable("it has a scale or an offset alone: torch has both or neither")
    groups = channels if settings["groups"] == -1 else settings["groups"]
    args = {"*num_groups": groups, "*num_channels": channels, "eps": settings["epsilon"]}
    args |= without({"affine": True}, affine=settings["scale"])
    return [Module("nn.GroupNorm", args, comment="torch's epsilon is 1e-5")]


def _rms_norm_source(layer: Layer, call: CallOf) -> list[Piece]:
    if layer.settings["axis"] not in (-1, [-1], call.input.rank - 1):
        raise Untranslatable("it normalises another axis than the last")
    args = {"*normalized_shape": call.input.channels, "eps": layer.settings["epsilon"]}
    return [Module("nn.RMSNorm", args)]


def _unit_source(layer: Layer, call: CallOf) -> list[Piece]:
    axes = layer.settings["axis"] if isinstance(layer.settings["axis"], list) else [layer.settings["axis"]]
    if len(axes) != 1:
        raise Untranslatable("it normalises several axes at once")
    return [Module("UnitNormalization", {"dim": call.input.dim(axes[0])})]


def _layer_scale(layer: Layer, call: CallOf) -> list[Piece]:
    return [Module("LayerScale", {"*channels": layer.settings["projection_dim"]})]


SOURCES = {
    "BatchNormalization": SourceRule(_batch_norm_source, "first"),
    "LayerNormalization": SourceRule(_layer_norm_source),
    "GroupNormalization": SourceRule(_group_norm_source, "first"),
    "RMSNormalization": SourceRule(_rms_norm_source, "last"),
    "UnitNormalization": SourceRule(_unit_source),
    "LayerScale": SourceRule(_layer_scale, "last"),
}
