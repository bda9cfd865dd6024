"""How far the two sides may differ: a row a rung, from the lowest to the highest, and `convert`'s bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """A rung's bounds, by precision or by quantity, and the reason for them."""

    bounds: Mapping[str, float]
    reason: str


def _by_precision(float64: float, float32: float, reason: str, **more: float) -> Row:
    return Row({"float64": float64, "float32": float32, **more}, reason)


# "As a share" is of the layer's largest magnitude, of pixels of their range.
ROWS = {
    "weights": Row({}, "a user's two models as they come: equal to the rounding of a file's precision"),
    "structure": _by_precision(0.0, 0.0, "counted and named, so equal"),
    "initial weights": _by_precision(0.0, 0.0, "drawn from one generator and only copied, so equal"),
    "preprocessing": _by_precision(
        1e-12, 1e-6, "a few operations on each pixel, as a share; order and sizes are equal"
    ),
    # In float64 a position off by a millionth of a pixel shows. In float32, positions up to 32 carry errors
    # of 2e-6 pixels, times the contrast of neighbours; where brightness ends in whole levels of 0..255, a
    # pixel on the other side of one is a level off, before the factor (1.7 at most): of few pixels.
    "augmentation": _by_precision(
        1e-9,
        1e-5,
        "four products a pixel at positions up to the image's size, as a share",
        level=2 / 255 + 1e-6,
        pixels_apart=2e-3,
    ),
    "augmentation draws": Row({}, "two samples of 20,000 draws: the test's critical value at 0.001"),
    "forward": _by_precision(
        3e-12,
        3e-4,
        "sums of products in another order, which BatchNorm over few values enlarges; as a share",
    ),
    "loss and gradients": _by_precision(
        1e-11, 1e-3, "as forward, and back through every layer again, as a share"
    ),
    "one step": _by_precision(
        1e-10,
        1e-5,
        "Adam divides a gradient by its own size, so rounding grows (float32: large ones count)",
    ),
    "trajectory": _by_precision(1e-9, 1e-2, "rounding carried through a few steps of Adam and BatchNorm"),
    # By the quantisation of a file that is run with its runtime's shortcuts (XNNPACK, graph optimisations)
    # and without.
    "export": Row(
        {"none": 1e-5, "float16": 1e-5, "dynamic": 1e-1, "int8": 1e-1},
        "one forward pass from the same float32 weights, of probabilities; the classes are equal",
    ),
    "planted faults": Row(
        {}, "a fault is planted in a pair of a user's kind: caught and named by its cause, or missed"
    ),
    # Float64 rounding, carried on. Measured margins stand in the report; a missed alignment of the two
    # frameworks shows at 1e-6 or more within a few steps.
    "whole run": Row(
        {
            "step loss": 1e-9,
            "loss": 1e-9,
            "accuracy": 1e-9,
            "val_loss": 1e-9,
            "val_accuracy": 1e-9,
            "learning_rate": 0.0,  # the same events, and the same arithmetic on Python floats
            "test_loss": 1e-8,  # by then the weights carry the whole run's rounding
            "predictions": 1e-8,
            "best_epoch": 0.0,
            "stopped_epoch": 0.0,
            "parameters": 0.0,
            "weights": 1e-8,
            "statistics": 1e-8,
            "momentums": 1e-8,
            "velocities": 1e-8,
        },
        "rounding carried through some hundred steps of Adam and BatchNorm",
    ),
}

# By precision: the test predictions of a run and of the run of the other side that it was turned into.
CONVERT = {
    "float64": 1e-12,  # the same weights to the last bit: what is left is the order of additions
    "float32": 1e-6,  # as in float64; for which it holds, too, where Keras runs on JAX or torch
    "bfloat16": 5e-2,  # the frameworks round to 8 bits in different places
}


def bound(rung: str, key: str) -> float:
    """How far a rung's quantity may differ: `key` is a precision, or the quantity."""
    return ROWS[rung].bounds[key]
