"""Error analysis: calibration, mistakes, confused classes, and a verdict on the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS = 15
SETTLED = 400  # steps: 0.99 to that power leaves 2 % of what the averages start from
GAP = 0.10  # of accuracy, training above validation
RISE = 0.05  # of the validation loss above its lowest, as a share
FALL = 0.01  # of the validation loss in the last epoch, as a share
LOW = 0.8  # training accuracy: a model at rest below it is too small, or too much held back


def calibration(y_true: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """The calibration of a classifier: its confidence against its accuracy.

    y_true: (N,) integers; probabilities: (N, C), N at least 1. Returns plain values: `ece`, the expected
    calibration error, and for each of `bins` equal intervals of (0, 1] `count`, mean `confidence` and
    `accuracy` (0 where it is empty). Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    confidence, hits = probabilities.max(1).astype(float), probabilities.argmax(1) == y_true
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights, minlength=bins) for weights in (confidence, hits.astype(float))]
    means = [np.divide(one, count, out=np.zeros(bins), where=count > 0) for one in sums]
    return {
        "ece": float((count * np.abs(means[0] - means[1])).sum() / len(y_true)),
        "count": count.tolist(),
        "confidence": means[0].tolist(),
        "accuracy": means[1].tolist(),
    }


def mistakes(y_true: np.ndarray, probabilities: np.ndarray, count: int = 25) -> np.ndarray:
    """Up to `count` rows that were classified wrongly, the most confident first: (K,) int64."""
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != y_true)
    return wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:count]


def confused(matrix: np.ndarray, class_names: Sequence[str], count: int = 5) -> list[dict[str, Any]]:
    """The pairs of classes most often taken for one another, by count; matrix: (C, C), row = true.

    Plain values: `true`, `predicted`, `count`, and `share` of the true class.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    return [
        {
            "true": str(class_names[i]),
            "predicted": str(class_names[j]),
            "count": int(wrong[i, j]),
            "share": float(wrong[i, j] / matrix[i].sum()),
        }
        for i, j in pairs
        if wrong[i, j]
    ]


def fit(history: Mapping[str, Sequence[float]], steps: int | None = None) -> str:
    """A verdict on the learning curves, in a sentence or two, with the configuration's keys that would help.

    history: columns of history.csv, one value an epoch. Training accuracy is that of augmented images under
    dropout, so a gap to validation is, if anything, understated. steps: those of a model with BatchNorm,
    whose moving averages have to settle before validation means anything.
    """
    losses, epochs = np.asarray(history["val_loss"], float), len(history["val_loss"])
    if epochs < 3:
        return f"fit: {epochs} epochs are too few to tell."
    if steps is not None and steps < SETTLED:
        return (
            f"fit: too early to tell: BatchNorm's moving averages settle within some {SETTLED} steps, and "
            f"this run took {steps}: more training.epochs, or a smaller training.batch_size."
        )
    best = int(losses.argmin())
    gap = history["accuracy"][-1] - history["val_accuracy"][-1]
    rise = losses[-1] / losses[best] - 1 if losses[best] > 0 else 0.0
    if rise > RISE and history["loss"][-1] < history["loss"][best]:
        return (
            f"fit: overfitting since epoch {best + 1}: the validation loss has risen by {rise:.0%} while the "
            "training loss fell. Try training.early_stopping.patience, training.l2, more dropout "
            "(model.block_dropout, model.head_dropout), or more of augment."
        )
    if gap > GAP:
        return (
            f"fit: overfitting: training accuracy is {100 * gap:.0f} points above validation. Try "
            "training.l2, more dropout (model.block_dropout, model.head_dropout), more of augment, or more "
            "images."
        )
    if best == epochs - 1 and losses[-1] < (1 - FALL) * losses[-2]:
        return "fit: still improving when it ended: more training.epochs."
    if history["accuracy"][-1] < LOW:
        return (
            f"fit: underfitting: training accuracy has come to rest at {history['accuracy'][-1]:.0%}. Try "
            "more of model.filters or model.dense_units, less dropout or augment, or another "
            "training.learning_rate."
        )
    return "fit: the curves show neither over- nor underfitting."
