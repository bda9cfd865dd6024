"""Dense layers and embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from lightning_impl.layers.layer_type import LayerType, Weights, own


def _dense(layer: Any) -> Weights:
    kernel = own(layer, lambda kernel: kernel.mT, weight="kernel")
    return {name: replace(weight, by_row=True) for name, weight in kernel.items()} | own(layer, bias="bias")


TABLE = (
    LayerType("Dense", (nn.Linear,), ("linear",), weights=_dense, channels=-1),
    LayerType(
        "Embedding",
        (nn.Embedding,),
        ("embedding",),
        weights=lambda layer: own(layer, weight="embeddings"),
        channels=-1,
    ),
)
