"""Several tensors made one."""

from __future__ import annotations

from keras import layers

from keras_impl.layers.layer_type import LayerType

TABLE = (
    LayerType("Add", (layers.Add,)),
    LayerType("Multiply", (layers.Multiply,)),
    LayerType("Concatenate", (layers.Concatenate,)),
)
