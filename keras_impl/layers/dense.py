"""Dense layers and embeddings."""

from __future__ import annotations

import math
from typing import Any

from keras import layers

from keras_impl.layers.layer_type import LayerType, Weight, Weights, own_weights


def _einsum_kind(layer: Any) -> str:
    return "EinsumDense" if _contracted(layer) is None else "Dense"


def _contracted(layer: Any) -> int | None:
    """How many of an EinsumDense's last input axes it takes to new last axes, as a Dense layer does the last.

    None where its equation says something else.
    """
    inputs, rest = layer.equation.replace("...", "").replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    contracted = [axis for axis in kernel if axis not in outputs]
    new = [axis for axis in kernel if axis in outputs]
    kept = inputs[: len(inputs) - len(contracted)]
    dense = kernel == "".join((*contracted, *new)) and inputs == kept + "".join(contracted)
    return len(contracted) if dense and outputs == kept + "".join(new) else None


def _einsum_weights(layer: Any) -> Weights:
    weights, count = own_weights(layer), _contracted(layer)
    if count is None:
        return weights
    kernel = layer.kernel.shape
    features = math.prod(kernel[count:])
    if "bias" in weights and math.prod(layer.bias.shape) == features:
        weights["bias"] = Weight(layer.bias, lambda bias: bias.reshape(-1))
    weights["kernel"] = Weight(layer._kernel, lambda kernel: kernel.reshape(-1, features))
    return weights


def _einsum_output(layer: Any, output: Any) -> Any:
    """With its new axes as one, as a Dense layer has it."""
    count = _contracted(layer)
    if count is None:
        return output
    new = len(layer.kernel.shape) - count
    return output.reshape(*output.shape[: output.ndim - new], -1)


TABLE = (
    LayerType("Dense", (layers.Dense,)),
    LayerType(_einsum_kind, (layers.EinsumDense,), weights=_einsum_weights, output=_einsum_output),
    LayerType("Embedding", (layers.Embedding, layers.ReversibleEmbedding)),
)
