"""Layers that move, add, cut off or repeat elements."""

from __future__ import annotations

from typing import Any

from torch import nn

from experiment.protocols.graph import Layer
from lightning_impl.keras_semantics import Flatten
from lightning_impl.layers.layer_type import Call, LayerType, Settings
from lightning_impl.layers.source import (
    CallOf,
    Expression,
    Module,
    Piece,
    Relaid,
    SourceRule,
    Untranslatable,
    channels_last,
    even,
    pad,
    without,
)

CONSTANT_PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)


def _padding(layer: Any) -> Settings:
    pad = [-amount if crops(layer) else amount for amount in layer.padding]
    return {"amounts": [list(pair) for pair in zip(pad[::2], pad[1::2], strict=True)][::-1]}


def crops(layer: Any) -> bool:
    """True for a module that pads by less than nothing."""
    return isinstance(layer, CONSTANT_PADS) and max(layer.padding) <= 0 > min(layer.padding)


def _padding_kind(layer: Any) -> str:
    return f"{'Cropping' if crops(layer) else 'ZeroPadding'}{len(layer.padding) // 2}D"


def _of_call(call: Call) -> Settings:
    before, after = call.shapes[0][2:], call.output[2:]
    ratios = [new / old for new, old in zip(after, before, strict=True)]
    settings = _interpolation(call.argument(3, "mode", "nearest"))
    if all(ratio == int(ratio) for ratio in ratios):
        settings["size"] = [int(ratio) for ratio in ratios]
    return settings | {"align_corners": bool(call.argument(4, "align_corners"))}


def _interpolation(mode: str) -> Settings:
    """Torch's nearest-exact is Keras's nearest where it enlarges by a whole number."""
    words = {"linear": "bilinear", "trilinear": "bilinear", "nearest-exact": "nearest"}
    return {"interpolation": words.get(mode, mode)}


TABLE = (
    LayerType("Flatten", (nn.Flatten, Flatten), ("flatten",)),
    LayerType(_padding_kind, CONSTANT_PADS, settings=_padding),
    # nn.Upsample among them, which says neither of how many axes nor by how much
    LayerType(
        lambda call: f"UpSampling{len(call.output) - 2}D",
        functions=("interpolate",),
        of_call=_of_call,
        channels=1,
    ),
)


# === Source ===


def _flatten(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    value = call.input
    if not value.first or all(size == 1 for size in value.space):
        return [Module("nn.Flatten", inline="{0}.flatten(1)")]
    return [Module("Flatten", comment="Keras's order: the channel runs fastest")]


def _reshape(layer: Layer, call: CallOf) -> list[Piece]:
    value, shape = call.input, call.output.shape
    if value.rank == 2 and len(shape) > 2 and all(size == 1 for size in shape[1:-1]):
        ones = ", None" * (len(shape) - 2)
        return [
            Expression(
                f"{{0}}[:, :{ones}]",
                Module("nn.Unflatten", {"*dim": 1, "*sizes": (-1, *shape[1:-1])}),
                first=True,
            )
        ]
    if len(shape) == 2 and (not value.first or all(size == 1 for size in value.space)):
        return [Expression("{0}.flatten(1)", Module("nn.Flatten"))]
    sizes = tuple(-1 if size is None else size for size in shape[1:])
    if value.first:
        raise Relaid("last")
    return [
        Expression(
            f"{{0}}.reshape({{0}}.shape[0], {', '.join(map(str, sizes))})",
            Module("Reshape", {"*sizes": sizes}),
        )
    ]


def _permute(layer: Layer, call: CallOf) -> list[Piece]:
    dims = (0, *layer.settings["dims"])
    return [Expression(f"{{0}}.permute({', '.join(map(str, dims))})", Module("Permute", {"*dims": dims}))]


def _repeat(layer: Layer, call: CallOf) -> list[Piece]:
    count = layer.settings["n"]
    return [Expression(f"{{0}}[:, None].repeat(1, {count}, 1)", Module("RepeatVector", {"*count": count}))]


def _zero_padding(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    return [pad(_pairs(layer.settings["padding"], call.input.rank - 2), "")]


def _cropping(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    pairs = _pairs(layer.settings["cropping"], call.input.rank - 2)
    return [pad([(-a, -b) for a, b in pairs], "", comment="a crop: padding below zero")]


def _pairs(padding: Any, dimensions: int) -> list[Any]:
    """Before and after each axis, from any of Keras's forms."""
    if isinstance(padding, int):
        return [(padding, padding)] * dimensions
    if dimensions == 1:
        return [tuple(padding) if len(padding) == 2 else (padding[0], padding[0])]
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def _up_sampling(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    size, mode = layer.settings["size"], layer.settings.get("interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise Untranslatable(f"its interpolation {mode} differs from torch's")
    scale = even(size) if isinstance(size, list) else size
    args = {"scale_factor": scale} | without({"mode": "nearest"}, mode=mode)
    return [Module("nn.Upsample", args)]


def _resizing(layer: Layer, call: CallOf) -> list[Piece]:
    channels_last(layer)
    settings = layer.settings
    mode = settings["interpolation"]
    odd = [key for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias") if settings.get(key)]
    if odd or mode not in ("bilinear",):
        raise Untranslatable(f"its {odd[0] if odd else f'interpolation {mode}'} differs from torch's")
    return [Module("nn.Upsample", {"size": (settings["height"], settings["width"]), "mode": mode})]


def _masking(layer: Layer, call: CallOf) -> list[Piece]:
    """Zeros for each step that is `mask_value` throughout; the mask itself is an operation of the graph."""
    return [Expression(f"{{0}} * ({{0}} != {layer.settings['mask_value']}).any(-1, keepdim=True)")]


SOURCES = {
    "Masking": SourceRule(_masking, "last"),
    "Flatten": SourceRule(_flatten),
    "Reshape": SourceRule(_reshape),
    "Permute": SourceRule(_permute, "last"),
    "RepeatVector": SourceRule(_repeat),
    **{f"ZeroPadding{n}D": SourceRule(_zero_padding, "first") for n in (1, 2, 3)},
    **{f"Cropping{n}D": SourceRule(_cropping, "first") for n in (1, 2, 3)},
    **{f"UpSampling{n}D": SourceRule(_up_sampling, "first") for n in (1, 2, 3)},
    "Resizing": SourceRule(_resizing, "first"),
}
