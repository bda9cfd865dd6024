"""A layer's weights as both sides write them: by Keras's names and in Keras's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_impl.layers.layer_type import Weight, Weights
from lightning_impl.layers.registry import layer_type


def weights(layer: nn.Module) -> Weights:
    """A layer's own weights and statistics in Keras's names; raises ValueError for an unknown kind."""
    entry = layer_type(layer)
    found = entry.weights(layer) if entry is not None else {}
    known = {name for weight in found.values() for name in (*weight.names, *weight.added)}
    if unknown := [name for name, _ in layer.named_parameters(recurse=False) if name not in known]:
        raise ValueError(
            f"a layer of kind {type(layer).__name__} has weights ({', '.join(sorted(unknown))}) "
            "that have no known counterpart in Keras"
        )
    return found


def arrays(layer: nn.Module, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A layer's own weights by Keras's names and in Keras's layout; raises ValueError for an unknown kind.

    rows: for a layer on flattened images, where torch has each of Keras's features (see `flat_rows`).
    """
    return {name: keras_layout(weight, weight.value, rows) for name, weight in weights(layer).items()}


def keras_layout(weight: Weight, value: Tensor, rows: np.ndarray | None = None) -> np.ndarray:
    """A weight's value, or its gradient or moment, as an array, rows of flattened images in Keras's order."""
    array = value.numpy(force=True)
    return np.ascontiguousarray(array if rows is None or not weight.by_row else array[rows])


def tensors(layer: nn.Module) -> dict[str, Tensor]:
    """Those of a layer's weights that are one tensor in torch, as it is."""
    return {name: weight.tensors[0] for name, weight in weights(layer).items()}


def keras_view(layer: nn.Module, tensor: Tensor) -> Tensor:
    """One weight of a layer, or anything of its shape (a gradient, a moment), seen in Keras's layout."""
    alike = (weight for weight in weights(layer).values() if weight.tensors[0].shape == tensor.shape)
    return next(alike).view(tensor)


def load(layer: nn.Module, values: Mapping[str, np.ndarray], rows: np.ndarray | None = None) -> None:
    """Copy weights in Keras's layout into a layer; raises ValueError where names or shapes do not fit."""
    write(weights(layer), values, rows)


def write(targets: Weights, values: Mapping[str, np.ndarray], rows: np.ndarray | None = None) -> None:
    """As `load`, into weights that are known. Axes of one element may be left out, or be more."""
    if targets.keys() != values.keys():
        raise ValueError(f"it has {_listed(targets)}, the other side's has {_listed(values)}")
    for name, target in targets.items():
        array, shape = np.asarray(values[name]), tuple(target.value.shape)
        if without_ones(array.shape) != without_ones(shape):
            raise ValueError(f"its {name} is {shape}, the other side's is {array.shape}")
        if rows is not None and target.by_row:
            array = array[np.argsort(rows)]
        target.write(torch.from_numpy(np.ascontiguousarray(array.reshape(shape))))


def without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without its axes of one element."""
    return tuple(size for size in shape if size != 1)


def flat_rows(shape: Sequence[int], axis: int) -> np.ndarray | None:
    """Where flattening puts each element of what Keras flattens, or None where it puts all of them there.

    shape: of what is flattened, without the batch. axis: of the channels, the batch counted.
    """
    places = np.arange(int(np.prod(shape))).reshape(shape)
    rows = np.moveaxis(places, axis - 1 if axis > 0 else axis, -1).ravel()
    return None if (rows == places.ravel()).all() else rows


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(sorted(values)) or "no weights"
