"""The optimizers that a configuration may name, each one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Setting = float | bool
Name = Literal["adam", "adamw", "sgd"]


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as both sides know it.

    settings: Keras's arguments that a configuration may set beside the learning rate, with Keras's defaults.
    """

    settings: Mapping[str, Setting] = field(default_factory=dict)


OPTIMIZERS: dict[Name, Optimizer] = {
    "adam": Optimizer(),
    "adamw": Optimizer({"weight_decay": 4e-3}),
    "sgd": Optimizer({"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}),
}
# What an optimizer may keep of every weight, by the names that traces and converted checkpoints have for it.
SLOTS = ("momentums", "velocities")
