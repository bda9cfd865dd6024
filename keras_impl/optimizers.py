"""The optimizers of `experiment.optimizers` in Keras, and what they keep of every weight."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from experiment.optimizers import SLOTS, Name, Setting

OPTIMIZERS: dict[Name, type[keras.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
# How the names of Keras's variables end, by slot.
ENDINGS = dict(zip(SLOTS, ("_momentum", "_velocity"), strict=True))


def build_optimizer(name: Name, learning_rate: float, settings: Mapping[str, Setting]) -> keras.Optimizer:
    """The named optimizer; settings: those of its record."""
    return OPTIMIZERS[name](learning_rate=learning_rate, **settings)


def slots(optimizer: keras.Optimizer) -> dict[str, list[keras.Variable]]:
    """What an optimizer keeps, by slot: a variable for each trained one, in their order."""
    found = {
        slot: [variable for variable in optimizer.variables if variable.name.endswith(ending)]
        for slot, ending in ENDINGS.items()
    }
    return {slot: variables for slot, variables in found.items() if variables}
