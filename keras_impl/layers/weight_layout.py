"""A layer's weights as both sides write them: by Keras's names and in Keras's layout."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_impl.layers.layer_type import Weights, own_weights
from keras_impl.layers.registry import layer_type


def weights(layer: Any) -> Weights:
    """A layer's own weights and statistics, without those of the parts that count as layers before it."""
    if not isinstance(layer, keras.Layer):
        return {}
    entry = layer_type(layer)
    return own_weights(layer) if entry is None else entry.weights(layer)


def units(name: str, layer: Any) -> dict[str, Weights]:
    """The weights of a layer of some name by the layers it counts as: SeparableConv2D is two convolutions."""
    entry = layer_type(layer) if isinstance(layer, keras.Layer) else None
    before = {} if entry is None else entry.before(layer)
    parts = {f"{name}/{part}": of.weights(layer) for part, of in before.items()}
    return parts | {name: weights(layer)}


def arrays(layer: Any) -> dict[str, np.ndarray]:
    """A layer's own weights by Keras's names and in the layout that both sides write."""
    return {name: weight.value for name, weight in weights(layer).items()}
