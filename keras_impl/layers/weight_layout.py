"""A layer's weights as both sides write them: by Keras's names and in Keras's layout."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_impl.layers.layer_types import DEPTHWISE


def arrays(layer: Any) -> dict[str, np.ndarray]:
    """A layer's own weights by Keras's names and in the layout that both sides write."""
    return {name: keras_layout(layer, name, variable) for name, variable in tensors(layer).items()}


def tensors(layer: Any) -> dict[str, Any]:
    """A layer's own weights and statistics, as Keras's variables."""
    if not isinstance(layer, keras.Layer):
        return {}
    # The state of a random generator is no weight. A layer made of others may hold two of one name.
    found = [v for v in layer.weights if "seed_generator" not in v.path]
    names = [v.name for v in found]
    return {v.name if names.count(v.name) == 1 else v.path: v for v in found}


def keras_layout(layer: Any, name: str, value: Any) -> np.ndarray:
    """One weight of a layer, or anything of its shape, as both sides write it.

    A depthwise kernel (height, width, in, multiplier) becomes (height, width, 1, in * multiplier), that of a
    convolution in groups.
    """
    array = keras.ops.convert_to_numpy(value)
    if name == "depthwise_kernel" or (isinstance(layer, DEPTHWISE) and name == "kernel"):
        array = array.reshape(*array.shape[:-2], 1, -1)
    return array


def unit(layer: Any, name: str) -> tuple[str, str]:
    """The layer and the weight that a variable goes by: a SeparableConv2D counts as two convolutions."""
    if name == "depthwise_kernel":
        return f"{layer.name}/depthwise", "kernel"
    return layer.name, "kernel" if name == "pointwise_kernel" else name
