"""Several tensors made one."""

from __future__ import annotations

from lightning_impl.layers.layer_type import Call, LayerType


def _of_tensors(call: Call) -> bool:
    """Whether two batches are merged: a constant or a parameter is no layer's output."""
    shapes = call.shapes
    return len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) and shapes[0][0] == shapes[1][0]


TABLE = (
    LayerType("Add", functions=("add", "add_", "__radd__"), is_layer=_of_tensors, merges=True),
    LayerType("Subtract", functions=("sub", "sub_"), is_layer=_of_tensors, merges=True),
    LayerType("Multiply", functions=("mul", "mul_", "__rmul__"), is_layer=_of_tensors, merges=True),
    LayerType("Maximum", functions=("maximum", "fmax"), is_layer=_of_tensors, merges=True),
    LayerType("Minimum", functions=("minimum", "fmin"), is_layer=_of_tensors, merges=True),
    LayerType("Concatenate", functions=("cat", "concat", "concatenate"), merges=True),
)
