"""Each alignment with Keras switched off, one at a time: what a migration by hand gets wrong.

    python -m lightning_impl.mutations NAME[,NAME...] trace REQUEST.json OUT     # OUT/NAME for each
    python -m lightning_impl.mutations NAME train [options of train]
    python -m lightning_impl.mutations NAME export [options of export]

`parity` runs these to show that its checks can fail, and to measure what each alignment is worth. Nothing of
this acts in a run that is not started here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiment import cli, randomness
from experiment.protocols import trace as tracing
from experiment.randomness import Parameters
from lightning_impl import (
    augment,
    backbones,
    callbacks,
    classifier,
    data,
    export,
    fit,
    keras_semantics,
    model,
    optimizers,
)
from lightning_impl.trace.command import trace


class UnbiasedVariance(keras_semantics.BatchNorm):
    forward = nn.BatchNorm2d.forward


class EpsilonAfterCorrection(keras_semantics.Adam):
    def _as_torch(self, group: dict[str, Any], t: int) -> tuple[float, float]:
        factor, _ = super()._as_torch(group, t)
        return factor, group["eps"]


class ExactBetas(keras_semantics.Adam):
    def _as_torch(self, group: dict[str, Any], t: int) -> tuple[float, float]:
        _, eps = super()._as_torch(group, t)
        return 1.0, eps


class CoupledDecay(keras_semantics.AdamW):
    """Adds the decay to the gradient, as torch's Adam does."""

    def _step_group(self, group: dict[str, Any], *rest: Any) -> list[Tensor]:
        return super()._step_group({**group, "decoupled_weight_decay": False}, *rest)


class LrOutsideVelocity(keras_semantics.SGD):
    """Multiplies the velocity by whatever the learning rate is, as torch's SGD does."""

    def _in_units_of_lr(
        self, group: dict[str, Any], lr: float, gradients: list[Tensor]
    ) -> tuple[float, list[Tensor]]:
        group["buffer_lr"] = lr
        return lr, gradients


class LatePlateau(keras_semantics.ReduceLROnPlateau):
    """Acts when more than `patience` epochs brought nothing, as torch's does."""

    def __init__(self, patience: int, *arguments: Any) -> None:
        super().__init__(patience + 1, *arguments)


class StridesLater(backbones.Residual):
    """torchvision's block: the second convolution strides, not the first."""

    def __init__(self, name: str, channels: int, filters: int, stride: int, convolve: bool) -> None:
        super().__init__(name, channels, filters, stride, convolve)
        first, second = (self.convolutions.get_submodule(f"{name}_{number}_conv") for number in (1, 2))
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        first.stride, second.stride = second.stride, first.stride


def _parameters(change: Callable[[Parameters], Parameters]) -> Any:
    """`randomness.affine_matrices` of changed augmentation parameters."""
    original = randomness.affine_matrices

    def changed(parameters: Parameters, size: int) -> np.ndarray:
        return original({**parameters, **change(parameters)}, size)

    return patch.object(augment.randomness, "affine_matrices", changed)


def _flip_first() -> Any:
    original = randomness.affine_matrices

    def changed(parameters: Parameters, size: int) -> np.ndarray:
        flip = parameters["flip"]
        matrices = original({**parameters, "flip": np.zeros_like(flip)}, size)
        matrices[flip, 0] *= -1
        matrices[flip, 0, 2] += size - 1
        return matrices

    return patch.object(augment.randomness, "affine_matrices", changed)


def _sampling(**changed: Any) -> Any:
    return patch.object(augment.F, "grid_sample", partial_over(F.grid_sample, changed))


def partial_over(function: Callable, changed: dict[str, Any]) -> Callable:
    """The function with arguments that stand above those of its caller."""
    return lambda *args, **kwargs: function(*args, **{**kwargs, **changed})


def _other_order() -> Any:
    original = randomness.epoch_order
    return patch.object(data.randomness, "epoch_order", lambda seed, *rest: original(seed + 1, *rest))


def _no_last_batch() -> Any:
    original = data.EpochOrder.__len__

    def dropped(self: data.EpochOrder) -> int:
        return len(self.labels) // self.batch_size if self.sampling is not None else original(self)

    return patch.object(data.EpochOrder, "__len__", dropped)


def _nudged() -> Any:
    original = randomness.kernel
    return patch.object(model.randomness, "kernel", lambda *of: np.nextafter(original(*of), np.inf))


def _half_l2() -> Any:
    original = classifier.Classifier._kernels
    return patch.object(
        classifier.Classifier, "_kernels", lambda self: [kernel * 0.5**0.5 for kernel in original(self)]
    )


def _weights_by_their_sum() -> Any:
    def loss(self: Any, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        total = original(self, logits, labels, class_weights)
        if class_weights is None:
            return total
        plain = original(self, logits, labels, torch.zeros_like(class_weights))
        return plain + (total - plain) * len(labels) / class_weights[labels].sum()

    original = classifier.Classifier.loss
    return patch.object(classifier.Classifier, "loss", loss)


MUTATIONS: dict[str, Callable[[], Any]] = {
    "bn_momentum": lambda: patch.object(model, "BatchNorm", partial(model.BatchNorm, momentum=0.9)),
    "bn_epsilon": lambda: patch.object(model, "BatchNorm", partial(model.BatchNorm, epsilon=1e-5)),
    "bn_bessel": lambda: patch.object(model, "BatchNorm", UnbiasedVariance),
    "bn_stock": lambda: patch.object(
        model, "BatchNorm", partial(UnbiasedVariance, epsilon=1e-5, momentum=0.9)
    ),
    "stride_placement": lambda: patch.object(backbones, "Residual", StridesLater),
    "stride_padding": lambda: patch.object(backbones, "_before_stride", lambda size: nn.ZeroPad2d(1)),
    "relu6": lambda: patch.object(backbones.nn, "ReLU6", nn.ReLU),
    "adam_epsilon": lambda: patch.dict(optimizers.OPTIMIZERS, adam=EpsilonAfterCorrection),
    "adam_beta_rounding": lambda: patch.dict(optimizers.OPTIMIZERS, adam=ExactBetas),
    "adam_stock": lambda: patch.dict(optimizers.OPTIMIZERS, adam=torch.optim.Adam),
    "adamw_coupled": lambda: patch.dict(optimizers.OPTIMIZERS, adamw=CoupledDecay),
    "sgd_velocity": lambda: patch.dict(optimizers.OPTIMIZERS, sgd=LrOutsideVelocity),
    "flatten_order": lambda: patch.object(model, "Flatten", nn.Flatten),
    "initial_weights": lambda: patch.object(model, "initialise", lambda *_: torch.manual_seed(0)),
    "one_ulp": _nudged,  # no alignment: the smallest difference there is, for `parity sensitivity`
    "rescaling": lambda: patch.object(model.Rescaling, "forward", lambda self, input: input / 255),
    "bgr_order": lambda: patch.object(model.Flip, "forward", lambda self, input: input),
    "mean_subtraction": lambda: patch.object(model.Normalization, "forward", lambda self, input: input),
    "zoom_direction": lambda: _parameters(lambda p: {"zx": 1 / p["zx"], "zy": 1 / p["zy"]}),
    "swapped_shifts": lambda: _parameters(lambda p: {"tx": p["ty"], "ty": p["tx"]}),
    "rotation_sign": lambda: _parameters(lambda p: {"theta": -p["theta"]}),
    "flip_order": _flip_first,
    "zero_fill": lambda: _sampling(padding_mode="zeros"),
    "nearest": lambda: _sampling(mode="nearest"),
    "last_batch": _no_last_batch,
    "shuffle_order": _other_order,
    "l2_factor": _half_l2,
    "class_weights": _weights_by_their_sum,
    "dropout_masks": lambda: patch.object(model, "share_dropout", lambda *_: None),
    "plateau": lambda: patch.object(callbacks, "ReduceLROnPlateau", LatePlateau),
    "early_stopping": lambda: patch.object(
        callbacks,
        "EarlyStopping",
        lambda monitor, patience, **more: stopping(monitor, patience=patience + 1, **more),
    ),
}
stopping = callbacks.EarlyStopping


@contextmanager
def mutated(names: Sequence[str]) -> Iterator[None]:
    """While it is entered, the named alignments are off."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(MUTATIONS[name]())
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    names, what, *rest = sys.argv[1:] if argv is None else argv
    if what == "train":
        with cli.refusing():
            request = cli.train_request("lightning", rest)
        cli.use_device("lightning", request.experiment)
        with mutated(names.split(",")):
            return cli.guarded(lambda: fit.fit(request.experiment, request.resume, request.checkpoint))
    if what == "export":
        with mutated(names.split(",")):
            return export.main(rest)
    request = tracing.read(Path(rest[0]))
    for name in names.split(","):
        with mutated([name]):
            tracing.write(Path(rest[1]) / name, *trace(request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
