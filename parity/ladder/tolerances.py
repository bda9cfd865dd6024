"""How far the two sides may differ, each bound with its reason."""

from __future__ import annotations

# The rungs that two traces decide, by precision, and why. "As a share" is of the layer's largest magnitude.
TRACE = {
    "structure": {"float64": 0.0, "float32": 0.0},
    "initial weights": {"float64": 0.0, "float32": 0.0},
    "preprocessing": {"float64": 1e-12, "float32": 1e-6},
    "augmentation": {"float64": 1e-9, "float32": 1e-5},
    "forward": {"float64": 3e-12, "float32": 3e-4},
    "loss and gradients": {"float64": 1e-11, "float32": 1e-3},
    "one step": {"float64": 1e-10, "float32": 1e-5},
    "trajectory": {"float64": 1e-9, "float32": 1e-2},
}
REASONS = {
    "structure": "counted and named, so equal",
    "initial weights": "drawn from one generator and only copied, so equal",
    "preprocessing": "a few operations on each pixel, as a share; order and sizes are equal",
    "augmentation": "four products a pixel at positions up to the image's size, as a share",
    "augmentation draws": "two samples of 20,000 draws: the test's critical value at 0.001",
    "forward": "sums of products in another order, which BatchNorm over few values enlarges; as a share",
    "loss and gradients": "as forward, and back through every layer again, as a share",
    "one step": "Adam divides a gradient by its own size, so rounding grows (float32: large ones count)",
    "trajectory": "rounding carried through a few steps of Adam and BatchNorm",
    "export": "one forward pass from the same float32 weights, of probabilities; the classes are equal",
    "whole run": "rounding carried through some hundred steps of Adam and BatchNorm",
}

# Float64 rounding, carried through some hundred steps of Adam and BatchNorm. Measured margins stand in the
# report; a missed alignment of the two frameworks shows at 1e-6 or more within a few steps.
WHOLE_RUN = {
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
}

# Shares of the pixel range, on images of 32 pixels.
AUGMENTATION = {
    "float64": 1e-9,  # rounding of the positions, 1e-15; a position off by a millionth of a pixel shows
    "float32": 1e-5,  # positions up to 32 carry errors of 2e-6 pixels, times the contrast of neighbours
}

# As AUGMENTATION, of pixels that end in whole levels: where float32 leaves one on the other side of a level,
# it is a level off, before the factor (1.7 at most).
LEVEL = {"float32": 2 / 255 + 1e-9}
LEVELS_APART = 2e-2  # the share of such pixels

# By precision: the test predictions of a run and of the run of the other side that it was turned into.
CONVERT = {
    "float64": 1e-12,  # the same weights to the last bit: what is left is the order of additions
    "float32": 1e-6,  # as in float64; for which it holds, too, where Keras runs on JAX or torch
    "bfloat16": 5e-2,  # the frameworks round to 8 bits in different places
}

# By quantisation: probabilities with a runtime's shortcuts (XNNPACK, graph optimisations) and without.
PLAIN = {None: 1e-5, "float16": 1e-5, "dynamic": 1e-1, "int8": 1e-1}
