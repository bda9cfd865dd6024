"""A layer's weights as both sides write them: by Keras's names and in Keras's layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_impl.layers.layer_types import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED

BY_FEATURE = (*BATCH_NORMS, nn.LayerNorm)  # what has a weight for each feature of flattened images


def arrays(layer: nn.Module, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A layer's own weights by Keras's names and in Keras's layout; raises ValueError for an unknown kind.

    rows: for a layer on flattened images, where torch has each of Keras's features (see `flat_rows`).
    """
    found = {name: keras_layout(layer, tensor, rows) for name, tensor in tensors(layer).items()}
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def tensors(layer: nn.Module) -> dict[str, Tensor]:
    """A layer's own weights and statistics by Keras's names; raises ValueError for an unknown kind."""
    own = dict(layer.named_parameters(recurse=False))
    if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)):
        names = {"weight": "kernel", "bias": "bias"}
    elif isinstance(layer, (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)):
        names = {"weight": "gamma", "bias": "beta"}
    elif isinstance(layer, nn.Embedding):
        names = {"weight": "embeddings"}
    else:
        names = {}
    if unknown := own.keys() - names.keys():
        raise ValueError(
            f"a layer of kind {type(layer).__name__} has weights ({', '.join(sorted(unknown))}) "
            "that have no known counterpart in Keras"
        )
    found: dict[str, Tensor] = {names[name]: p for name, p in own.items()}
    if isinstance(layer, BATCH_NORMS) and layer.running_mean is not None and layer.running_var is not None:
        found |= {"moving_mean": layer.running_mean, "moving_variance": layer.running_var}
    return found


def keras_view(layer: nn.Module, tensor: Tensor) -> Tensor:
    """One weight of a layer, or anything of its shape (a gradient, a moment), seen in Keras's layout."""
    if tensor.dim() < 2 or isinstance(layer, nn.Embedding):
        return tensor
    if isinstance(layer, nn.LayerNorm):  # over (C, H, W)
        return tensor.movedim(0, -1)
    # (out, in), (out, in, space...) and, transposed, (in, out, space...): Keras's with the first two turned
    # round and put last.
    return tensor.permute(*range(2, tensor.dim()), 1, 0)


def keras_layout(layer: nn.Module, tensor: Tensor, rows: np.ndarray | None = None) -> np.ndarray:
    """As `keras_view`, as an array, with the rows of flattened images in Keras's order."""
    array = keras_view(layer, tensor).numpy(force=True)
    return array if rows is None or not _by_row(layer, tensor) else array[rows]


@torch.no_grad()
def load(layer: nn.Module, values: dict[str, np.ndarray], rows: np.ndarray | None = None) -> None:
    """Copy weights in Keras's layout into a layer; raises ValueError where names or shapes do not fit."""
    targets = tensors(layer)
    if targets.keys() != values.keys():
        raise ValueError(f"it has {_listed(targets)}, the other side's has {_listed(values)}")
    for name, target in targets.items():
        view, array = keras_view(layer, target), np.asarray(values[name])
        if rows is not None and _by_row(layer, target):
            array = array[np.argsort(rows)]
        if array.shape != tuple(view.shape):
            raise ValueError(f"its {name} is {tuple(view.shape)}, the other side's is {array.shape}")
        view.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _by_row(layer: nn.Module, tensor: Tensor) -> bool:
    """Whether a weight has a row for each feature of flattened images."""
    return (isinstance(layer, nn.Linear) and tensor.dim() == 2) or isinstance(layer, BY_FEATURE)


def flat_rows(shape: Sequence[int], axis: int) -> np.ndarray | None:
    """Where flattening puts each element of what Keras flattens, or None where it puts all of them there.

    shape: of what is flattened, without the batch. axis: of the channels, the batch counted.
    """
    places = np.arange(int(np.prod(shape))).reshape(shape)
    rows = np.moveaxis(places, axis - 1 if axis > 0 else axis, -1).ravel()
    return None if (rows == places.ravel()).all() else rows


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(sorted(values)) or "no weights"
