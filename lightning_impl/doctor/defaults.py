"""torch's defaults that are not Keras's, and what torch does otherwise whatever its settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from experiment.protocols.keras_defaults import DEFAULTS
from lightning_impl import keras_semantics
from lightning_impl.layers.normalisation import BATCH_NORMS


@dataclass(frozen=True)
class Finding:
    """One thing that Keras does otherwise: where, what torch does, what Keras does, and the way to match."""

    where: str
    torch: str
    keras: str
    remedy: str


# By torch's class: Keras's, and Keras's names of torch's arguments.
Rule = tuple[str, dict[str, str]]
RATE = {"lr": "learning_rate"}
ARGUMENTS: dict[type | tuple[type, ...], Rule] = {
    BATCH_NORMS: ("BatchNormalization", {"momentum": "momentum", "eps": "epsilon"}),
    nn.LayerNorm: ("LayerNormalization", {"eps": "epsilon"}),
    nn.GroupNorm: ("GroupNormalization", {"eps": "epsilon"}),
    nn.LeakyReLU: ("LeakyReLU", {"negative_slope": "negative_slope"}),
    torch.optim.AdamW: ("AdamW", {**RATE, "eps": "epsilon", "weight_decay": "weight_decay"}),
    torch.optim.NAdam: ("Nadam", {**RATE, "eps": "epsilon"}),
    torch.optim.Adamax: ("Adamax", {**RATE, "eps": "epsilon"}),
    torch.optim.Adam: ("Adam", {**RATE, "eps": "epsilon"}),
    torch.optim.SGD: ("SGD", {**RATE, "momentum": "momentum"}),
    torch.optim.RMSprop: ("RMSprop", {**RATE, "alpha": "rho", "eps": "epsilon"}),
    torch.optim.Adagrad: (
        "Adagrad",
        {**RATE, "initial_accumulator_value": "initial_accumulator_value", "eps": "epsilon"},
    ),
    torch.optim.Adadelta: ("Adadelta", {**RATE, "rho": "rho", "eps": "epsilon"}),
    EarlyStopping: ("EarlyStopping", {"patience": "patience"}),
}
MATCHED = (keras_semantics.BatchNorm, keras_semantics.Adam, keras_semantics.SGD)
SEMANTICS = "lightning_impl.keras_semantics"
ADAM = (
    "epsilon is added after the bias correction",
    "beside sqrt(v), before it; on TensorFlow the betas are rounded to float32",
)
# What no argument changes: torch's way, Keras's, the way out.
ALWAYS: dict[type | tuple[type, ...], tuple[str, str, str]] = {
    BATCH_NORMS: (
        "the moving variance takes up the batch's unbiased variance (Bessel's correction)",
        "the biased one, in training and in the moving variance",
        f"{SEMANTICS}.BatchNorm",
    ),
    nn.LSTM: (
        "two biases, initial weights uniform within 1/sqrt(hidden size)",
        "one bias with 1 for the forget gate, Glorot uniform kernel, orthogonal recurrent kernel",
        "copy Keras's weights; bias_hh = 0",
    ),
    nn.GRU: (
        "initial weights uniform within 1/sqrt(hidden size)",
        "Glorot uniform kernel, orthogonal recurrent kernel, zero biases",
        "copy Keras's weights",
    ),
    torch.optim.AdamW: (*ADAM, f"{SEMANTICS}.AdamW"),
    torch.optim.Adam: (*ADAM, f"{SEMANTICS}.Adam"),
    torch.optim.NAdam: (
        "the momentum's schedule is 0.96 ** (0.004 t)",
        "0.96 ** t",
        "momentum_decay=1",
    ),
    torch.optim.RMSprop: (
        "epsilon is added to the root of the mean square",
        "to the mean square, under the root",
        "subclass RMSprop",
    ),
    torch.optim.Adagrad: (
        "epsilon is added to the root of the sum",
        "to the sum, under the root",
        "subclass Adagrad",
    ),
    lr_scheduler.ReduceLROnPlateau: (
        "acts after more than `patience` bad epochs, and the threshold is a share of the best value",
        "acts at `patience` bad epochs, and min_delta is an absolute difference",
        f"{SEMANTICS}.ReduceLROnPlateau; or patience - 1 and threshold_mode='abs'",
    ),
    lr_scheduler.LRScheduler: (
        "Lightning steps it once an epoch unless its interval is 'step'",
        "a LearningRateSchedule is a function of the step; a LearningRateScheduler callback of the epoch",
        "compare the learning rates of every epoch",
    ),
    EarlyStopping: (
        "the last epoch's weights stay in the model",
        "so too, unless restore_best_weights is set",
        "load ModelCheckpoint's best_model_path where Keras restores the best",
    ),
}


def of_arguments(thing: Any, where: str) -> Iterator[Finding]:
    """Arguments that have torch's default where Keras's is another; a value that was chosen is no warning."""
    for kinds, (name, arguments) in ARGUMENTS.items():
        if not isinstance(thing, kinds) or isinstance(thing, MATCHED):
            continue
        parameters = inspect.signature(type(thing).__mro__[_first_torch(thing)].__init__).parameters
        for argument, keras_name in arguments.items():
            default, theirs = parameters[argument].default, DEFAULTS[name][keras_name]
            value = _value(thing, argument)
            converted = 1 - value if argument == "momentum" and isinstance(thing, BATCH_NORMS) else value
            if value == default and abs(converted - theirs) > 1e-12:
                same = f" ({converted:g} in Keras's terms)" if converted != value else ""
                keras_value = f"{keras_name} {theirs:g}"
                back = f"{1 - theirs:g}" if converted != value else f"{theirs:g}"
                yield Finding(where, f"{argument} {value:g}{same}", keras_value, f"{argument}={back}")
        return


def of_behaviour(thing: Any, where: str) -> Iterator[Finding]:
    """What torch does otherwise whatever the settings, and settings that Keras does not have."""
    if isinstance(thing, MATCHED):
        return
    for kinds, texts in ALWAYS.items():
        if isinstance(thing, kinds):
            yield Finding(where, *texts)
            break
    if isinstance(thing, torch.optim.Optimizer):
        yield from _of_optimizer(thing, where)
    elif isinstance(thing, nn.modules.loss._Loss):
        yield from _of_loss(thing, where)
    elif isinstance(thing, DataLoader) and thing.drop_last:
        yield Finding(where, "drop_last=True", "the last, partial batch is trained on", "drop_last=False")
    elif isinstance(thing, pl.Trainer) and thing.gradient_clip_val:
        ours = f"gradient_clip_val {thing.gradient_clip_val:g} bounds the norm over all weights"
        yield Finding(where, ours, "clipnorm bounds each weight's norm alone", "Keras: global_clipnorm")


def _of_optimizer(optimizer: Any, where: str) -> Iterator[Finding]:
    group = optimizer.param_groups[0]
    decay = group.get("weight_decay", 0)
    if decay and not isinstance(optimizer, torch.optim.AdamW) and not group.get("decoupled_weight_decay"):
        yield Finding(
            where,
            f"weight_decay {decay:g} adds {decay:g} * w to the gradient",
            "regularizers.L2(x) adds 2x * w, on kernels alone; an optimizer's weight_decay is decoupled",
            f"L2({decay / 2:g}) in Keras, on the same weights",
        )
    if isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
        yield Finding(
            where,
            "the learning rate multiplies the velocity",
            "it is taken up in the velocity: after a change the two differ for some steps",
            f"a constant learning rate, or {SEMANTICS}.SGD",
        )
        if group["dampening"]:
            yield Finding(where, f"dampening {group['dampening']:g}", "none", "dampening=0")
    if not isinstance(optimizer, tuple(kind for kind in ARGUMENTS if isinstance(kind, type))):
        name = type(optimizer).__name__
        yield Finding(where, f"{name} is not known here", "may have no such optimizer", "trace one step")


def _of_loss(loss: Any, where: str) -> Iterator[Finding]:
    if loss.reduction == "sum":
        yield Finding(where, "the loss is the batch's sum", "its mean", "reduction='mean'")
    if getattr(loss, "weight", None) is not None and loss.reduction == "mean":
        yield Finding(
            where,
            "class weights: the sum is divided by the sum of the weights",
            "by the batch size",
            "reduction='none', then the mean",
        )


def _first_torch(thing: Any) -> int:
    """Which class of a thing's is the first that is not the user's own."""
    return next(
        i for i, kind in enumerate(type(thing).__mro__) if kind.__module__.startswith(("torch", "lightning"))
    )


def _value(thing: Any, argument: str) -> Any:
    if isinstance(thing, torch.optim.Optimizer):
        return thing.defaults[argument] if argument in thing.defaults else thing.param_groups[0][argument]
    return getattr(thing, argument)
