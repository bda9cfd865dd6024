"""Layers that move, add, cut off or repeat elements."""

from __future__ import annotations

from torch import nn

from lightning_impl.layers.layer_type import LayerType

TABLE = (
    LayerType("Flatten", (nn.Flatten,), ("flatten",)),
    LayerType("ZeroPadding2D", (nn.ConstantPad2d,)),
    LayerType("UpSampling2D", (nn.Upsample,), ("interpolate",), channels=1),
)
