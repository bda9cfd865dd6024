"""A model's weights as plain arrays, in Keras's layout and under the layers' names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from experiment.errors import RunError
from experiment.protocols.checkpoint import Arrays
from experiment.training import warm_start as update
from experiment.training.lifecycle import Session
from lightning_impl import checkpoint
from lightning_impl.layers.weight_layout import tensors as canonical_tensors
from lightning_impl.model import as_keras


def weights(model: nn.Module) -> Arrays:
    """Every weight and moving statistic by `LAYER/NAME`, such as conv1/kernel or bn1/moving_mean.

    Kernels are (height, width, in, out), of a depthwise convolution (height, width, in, multiplier), or
    (in, out); dtypes are the model's.
    """
    return {name: to_array(as_keras(*of)) for name, of in by_name(model).items()}


def load(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a model what `weights` found; raises RunError where names or shapes differ."""
    own = by_name(model)
    if odd := sorted(own.keys() ^ arrays.keys()):
        raise RunError(f"the model and the arrays differ in {', '.join(odd)}")
    for name, of in own.items():
        assign(as_keras(*of), arrays[name], name)


def warm_start(session: Session, model: nn.Module) -> None:
    """Give a new model the weights of the run that its session starts from, if from any."""
    if session.warm is not None:
        old = weights(checkpoint.load(session.warm).network)
        load(model, update.grown(old, weights(model), len(session.warm.class_names)))


def by_name(model: nn.Module) -> dict[str, tuple[nn.Module, Tensor]]:
    """Every layer's weights and statistics, each with its layer."""
    return {
        f"{path.rsplit('.', 1)[-1]}/{name}": (layer, tensor)
        for path, layer in model.named_modules()
        for name, tensor in canonical_tensors(layer).items()
    }


def to_array(values: Tensor) -> np.ndarray:
    """A copy of a tensor."""
    return np.array(values.numpy(force=True), order="C")


@torch.no_grad()
def assign(target: Tensor, values: np.ndarray, name: str) -> None:
    """Set a tensor; raises RunError, with `name`, where the shape is another."""
    if tuple(target.shape) != values.shape:
        raise RunError(f"{name} is {tuple(target.shape)} in the model and {values.shape} in the arrays")
    target.copy_(torch.from_numpy(values))
