"""Keras's own defaults, as plain numbers: what a model that is built without arguments has."""

from __future__ import annotations

from typing import Any

# By class and argument. tests/keras_impl/test_keras_defaults.py holds every one against Keras's signatures.
LAYERS: dict[str, dict[str, Any]] = {
    "BatchNormalization": {"momentum": 0.99, "epsilon": 1e-3},
    "LayerNormalization": {"epsilon": 1e-3},
    "GroupNormalization": {"epsilon": 1e-3},
    "LeakyReLU": {"negative_slope": 0.3},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"learning_rate": 1e-3, "epsilon": 1e-7},
    "AdamW": {"learning_rate": 1e-3, "epsilon": 1e-7, "weight_decay": 4e-3},
    "Adamax": {"learning_rate": 1e-3, "epsilon": 1e-7},
    "Nadam": {"learning_rate": 1e-3, "epsilon": 1e-7},
    "SGD": {"learning_rate": 1e-2, "momentum": 0.0, "nesterov": False},
    "RMSprop": {"learning_rate": 1e-3, "rho": 0.9, "epsilon": 1e-7},
    "Adagrad": {"learning_rate": 1e-3, "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    "Adadelta": {"learning_rate": 1e-3, "rho": 0.95, "epsilon": 1e-7},
}
CALLBACKS: dict[str, dict[str, Any]] = {
    "EarlyStopping": {"patience": 0, "min_delta": 0, "restore_best_weights": False},
    "ReduceLROnPlateau": {"patience": 10, "factor": 0.1, "min_delta": 1e-4, "cooldown": 0, "min_lr": 0.0},
}
DEFAULTS = {**LAYERS, **OPTIMIZERS, **CALLBACKS}
