"""Keras's optimizer for a module that configures none, as its Keras model was compiled with it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from lightning_impl import keras_semantics
from lightning_impl.layers.layer_type import Weights
from lightning_impl.semantics.optimizers import Adadelta, Adagrad, Adamax, Lion, Nadam, RMSprop
from lightning_impl.trace.optimizer import SETTINGS, Training

TWINS: dict[str, Any] = {  # Keras's optimizers, written for torch
    "Adam": keras_semantics.Adam,
    "SGD": keras_semantics.SGD,
    **{cls.__name__: cls for cls in (RMSprop, Adagrad, Adadelta, Adamax, Nadam, Lion)},
}
CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


def as_keras(
    training: Training,
    described: Mapping[str, Any],
    weights: Mapping[str, Weights],
    layers: Mapping[str, str],
) -> Training:
    """The training of a module that configures no optimizer: by the one that Keras's model was compiled with,
    written for torch, where there is one; else as it is.

    described: Keras's `facts`. layers: Keras's names of torch's.
    """
    settings, family = described["settings"], described["family"]
    if family not in TWINS or settings.get("ema_overwrite_frequency"):
        return training
    held = {tuple(key.rsplit("/", 1)) for key, own in described["overrides"].items() if "weight_decay" in own}
    without_decay = {
        id(weight.parameters[0])
        for name, found in weights.items()
        for kind, weight in found.items()
        if (layers.get(name, ""), kind) in held
    }
    parameters = [p for p in training.model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in without_decay]}]
    if without_decay:
        groups.append({"params": [p for p in parameters if id(p) in without_decay], "weight_decay": 0.0})
    given = {ours: settings[theirs] for ours, theirs in SETTINGS.items() if theirs in settings}
    if "beta_1" in settings:
        given["betas"] = (settings["beta_1"], settings["beta_2"])
    given["weight_decay"] = settings["weight_decay"]
    known = inspect.signature(TWINS[family].__init__).parameters
    rates = described["rates"]
    optimizer = TWINS[family](
        [group for group in groups if group["params"]],
        lr=rates[0] if len(rates) == 1 else 1.0,
        **{name: value for name, value in given.items() if name in known},
    )
    clipping = {name: settings[name] for name in CLIPPING if settings.get(name)}
    own = Training(training.model, optimizer, clipping=clipping, notes=training.notes, given=False)
    own.accumulate = int(settings.get("gradient_accumulation_steps") or 1)
    if len(rates) > 1:
        schedule = LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)])
        own.schedulers = [{"scheduler": schedule, "interval": "step", "frequency": 1}]
    if described.get("compiled"):
        own.notes.append(
            f"torch's module configures no optimizer: it was trained by Keras's {described['class']}, "
            "written for torch; that of a LightningModule would be compared"
        )
    return own
