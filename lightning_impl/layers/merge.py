"""Several tensors made one."""

from __future__ import annotations

from lightning_impl.layers.layer_type import Call, LayerType


def _of_tensors(call: Call) -> bool:
    """Whether two batches are merged: a constant or a parameter is no layer's output."""
    shapes = call.shapes
    return len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) and shapes[0][0] == shapes[1][0]


TABLE = (
    LayerType("Add", functions=("add", "add_"), is_layer=_of_tensors),
    LayerType("Multiply", functions=("mul", "mul_"), is_layer=_of_tensors),
    LayerType("Concatenate", functions=("cat", "concat", "concatenate")),
)
