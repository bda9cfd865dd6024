"""Attention, with heads and without."""

from __future__ import annotations

from typing import Any

from keras import layers

from keras_impl.layers.layer_type import LayerType, Weights, attributes, exact, prefixed


def _heads(layer: Any) -> Weights:
    parts = {"query": layer.query_dense, "key": layer.key_dense, "value": layer.value_dense}
    return prefixed(parts | {"output": layer.output_dense})


def _grouped_heads(layer: Any) -> Weights:
    parts = {"query": layer._query_dense, "key": layer._key_dense, "value": layer._value_dense}
    return prefixed(parts | {"output": layer._output_dense})


def _first(layer: Any, output: Any) -> Any:
    """Without the attention scores."""
    return output[0] if isinstance(output, list | tuple) else output


TABLE = (
    LayerType(
        "MultiHeadAttention",
        (layers.MultiHeadAttention,),
        attributes("num_heads", "key_dim", "dropout"),
        _heads,
        _first,
        random=True,
        constants=exact("_inverse_sqrt_key_dim"),
    ),
    LayerType(
        "GroupedQueryAttention",
        (layers.GroupQueryAttention,),
        attributes("num_query_heads", "num_key_value_heads", "head_dim", "dropout"),
        _grouped_heads,
        _first,
        random=True,
    ),
    LayerType("Attention", (layers.Attention,), attributes("dropout"), output=_first, random=True),
    LayerType(
        "AdditiveAttention", (layers.AdditiveAttention,), attributes("dropout"), output=_first, random=True
    ),
)
