"""Dense layers and embeddings, and parameters of a block that act as these do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lightning_impl.layers.layer_type import LayerType, Weights, own


def _dense(layer: Any) -> Weights:
    kernel = own(layer, lambda kernel: kernel.mT, weight="kernel")
    return {name: replace(weight, by_row=True) for name, weight in kernel.items()} | own(layer, bias="bias")


def _table(embeddings: Tensor) -> Tensor:
    """(1, N, D) as (N, D)."""
    return embeddings[0] if embeddings.dim() > 2 and embeddings.shape[0] == 1 else embeddings


def _hidden(layer: Any, output: Any) -> None:
    """Nothing: torch adds at once what Keras gives by itself before it is added."""
    return


TABLE = (
    LayerType(
        "Dense",
        (nn.Linear,),
        ("linear",),
        weights=_dense,
        positions=lambda call: {"weight": 1, "bias": 2},
        channels=-1,
    ),
    # x @ kernel
    LayerType(
        "Dense",
        on_parameter=("matmul", "mm"),
        weights=lambda arguments: own(arguments, weight="kernel"),
        channels=-1,
    ),
    LayerType(
        "Embedding",
        (nn.Embedding,),
        ("embedding",),
        weights=lambda layer: own(layer, weight="embeddings"),
        positions=lambda call: {"weight": 0 if call.native else 1},
        channels=-1,
    ),
    # Of positions: x + embeddings
    LayerType(
        "Embedding",
        on_parameter=("add", "add_"),
        weights=lambda arguments: own(arguments, _table, weight="embeddings"),
        output=_hidden,
    ),
    # A first token of a sequence that is learnt: cat([token, x])
    LayerType(
        "ClassToken",
        on_parameter=("cat", "concat", "concatenate"),
        weights=lambda arguments: own(arguments, lambda token: token[:1], weight="token"),
        output=_hidden,
    ),
)
