"""Attention, with heads and without."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_impl.layers.layer_type import LayerType, Settings, Weight, Weights

PARTS = ("query", "key", "value")


def _settings(layer: Any) -> Settings:
    return {"num_heads": layer.num_heads, "key_dim": layer.head_dim}


def _heads(layer: Any) -> Weights:
    """Torch packs what query, key and value are made with, one under another, where they have one size."""
    weights: Weights = {}
    packed = layer.in_proj_weight is not None
    for place, part in enumerate(PARTS):
        kernel = "in_proj_weight" if packed else f"{part[0]}_proj_weight"
        weights[f"{part}_kernel"] = Weight(
            layer, (kernel,), partial(_kernel, layer.num_heads, place if packed else None)
        )
        if layer.in_proj_bias is not None:
            weights[f"{part}_bias"] = Weight(layer, ("in_proj_bias",), partial(_bias, layer.num_heads, place))
    weights["output_kernel"] = Weight(layer, ("out_proj.weight",), partial(_output_kernel, layer.num_heads))
    if layer.out_proj.bias is not None:
        weights["output_bias"] = Weight(layer, ("out_proj.bias",))
    return weights


def _kernel(heads: int, place: int | None, kernel: Tensor) -> Tensor:
    """(heads * dim, features) -> (features, heads, dim)."""
    kernel = kernel if place is None else kernel.chunk(3)[place]
    return kernel.mT.reshape(kernel.shape[1], heads, -1)


def _bias(heads: int, place: int, bias: Tensor) -> Tensor:
    return bias.chunk(3)[place].reshape(heads, -1)


def _output_kernel(heads: int, kernel: Tensor) -> Tensor:
    """(features, heads * dim) -> (heads, dim, features)."""
    return kernel.mT.reshape(heads, -1, kernel.shape[0])


TABLE = (
    LayerType(
        "MultiHeadAttention",
        (nn.MultiheadAttention,),
        settings=_settings,
        weights=_heads,
        channels=-1,
        random=True,
    ),
    LayerType("Attention", functions=("scaled_dot_product_attention",)),
)
