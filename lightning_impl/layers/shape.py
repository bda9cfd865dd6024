"""Layers that move, add, cut off or repeat elements."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_impl.keras_semantics import Flatten
from lightning_impl.layers.layer_type import Call, LayerType, Settings

CONSTANT_PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)


def _padding(layer: Any) -> Settings:
    pad = list(layer.padding)
    return {"amounts": [list(pair) for pair in zip(pad[::2], pad[1::2], strict=True)][::-1]}


def _padding_kind(layer: Any) -> str:
    return f"ZeroPadding{len(layer.padding) // 2}D"


def _of_call(call: Call) -> Settings:
    before, after = call.shapes[0][2:], call.output[2:]
    ratios = [new / old for new, old in zip(after, before, strict=True)]
    settings = _interpolation(call.argument(3, "mode", "nearest"))
    if all(ratio == int(ratio) for ratio in ratios):
        settings["size"] = [int(ratio) for ratio in ratios]
    return settings | ({"align_corners": True} if call.argument(4, "align_corners") else {})


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
