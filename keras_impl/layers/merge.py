"""Several tensors made one, as layers and as operations of a functional graph."""

from __future__ import annotations

from keras import layers
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.ops import numpy as operations

from keras_impl.layers.layer_type import LayerType

TABLE = (
    LayerType("Add", (layers.Add, operations.Add, CustomScaleLayer)),
    LayerType("Subtract", (layers.Subtract, operations.Subtract)),
    LayerType("Multiply", (layers.Multiply, operations.Multiply)),
    LayerType("Average", (layers.Average,)),
    LayerType("Maximum", (layers.Maximum, operations.Maximum)),
    LayerType("Minimum", (layers.Minimum, operations.Minimum)),
    LayerType("Concatenate", (layers.Concatenate, operations.Concatenate)),
    LayerType("Dot", (layers.Dot,)),
)
