"""Test metrics from labels and probabilities: accuracy, per-class scores, confusion matrix, text report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def evaluate(y_true: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Score predictions on a test split.

    `y_true`: (N,) integers; `probabilities`: (N, C) floats, the prediction is the largest of a row (the
    first of equals); `class_names`: C different names. Returns plain JSON values: `test_accuracy`,
    `per_class` {name: {precision, recall, f1, support}} and `macro_f1`, the plain mean over all C
    classes; all scores in [0, 1]. A score that would divide by zero is 0.0, so a class without test
    images lowers the macro F1, as in scikit-learn with `labels=range(C), zero_division=0`. Raises
    ValueError as `confusion` does, and when the names do not fit.
    """
    matrix = confusion(y_true, probabilities)
    if len(class_names) != len(matrix):
        raise ValueError(f"{len(class_names)} class names for {len(matrix)} columns of probabilities")
    if len(set(class_names)) != len(class_names):
        raise ValueError("class names must differ from one another")
    from sklearn.metrics import precision_recall_fscore_support  # here: --help needs none of it

    y_pred, labels = np.asarray(probabilities).argmax(axis=1), range(len(matrix))
    scores = precision_recall_fscore_support(y_true, y_pred, labels=labels, zero_division=0)
    columns = zip(("precision", "recall", "f1", "support"), scores, strict=True)
    table = {score: np.asarray(values).tolist() for score, values in columns}
    return {
        "test_accuracy": float(np.trace(matrix) / matrix.sum()),
        "per_class": {
            str(name): {score: values[i] for score, values in table.items()}
            for i, name in enumerate(class_names)
        },
        "macro_f1": float(np.mean(table["f1"])),
    }


def confusion(y_true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count how often each true class was predicted as each class.

    `y_true`: (N,) integers in [0, C); `probabilities`: (N, C) floats. Returns (C, C) int64: row = true,
    column = predicted. Raises ValueError on other shapes, on no rows, on labels that are not integers
    or out of range, and on NaN probabilities (a diverged model predicts nothing).
    """
    y_true, probabilities = np.asarray(y_true), np.asarray(probabilities)
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise ValueError(f"probabilities must have shape (N, C), N and C at least 1: {probabilities.shape}")
    samples, classes = probabilities.shape
    if y_true.shape != (samples,):
        raise ValueError(f"y_true must have shape ({samples},), like probabilities: {y_true.shape}")
    if not np.issubdtype(y_true.dtype, np.integer):
        raise ValueError(f"y_true must be integers, not {y_true.dtype}")
    if y_true.min() < 0 or y_true.max() >= classes:
        raise ValueError(f"y_true must lie in [0, {classes}): it spans {y_true.min()} to {y_true.max()}")
    if np.isnan(probabilities).any():
        raise ValueError("probabilities hold NaN: the training has diverged; try a lower learning rate")
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(y_true, probabilities.argmax(axis=1), labels=range(classes))


def report(metrics: dict[str, Any], name_width: int = 24) -> str:
    """Lay out the result of `evaluate` as an aligned text table for the terminal.

    `metrics`: as `evaluate` returns it, further keys are ignored; `name_width`: characters, longer class
    names lose their middle. Scores with four decimals; the last two lines are accuracy and macro F1,
    under the F1 column, with the number of test images.
    """
    names = [shorten(name, name_width) for name in metrics["per_class"]]
    width = max(len(name) for name in [*names, "accuracy"])
    lines = [f"{'class':<{width}}  precision  recall      f1  support"]
    lines += [
        f"{name:<{width}}  {s['precision']:9.4f}  {s['recall']:6.4f}  {s['f1']:6.4f}  {s['support']:7d}"
        for name, s in zip(names, metrics["per_class"].values(), strict=True)
    ]
    total = sum(s["support"] for s in metrics["per_class"].values())
    lines.append("-" * len(lines[0]))
    for name, key in (("accuracy", "test_accuracy"), ("macro F1", "macro_f1")):
        lines.append(f"{name:<{width}}  {'':9}  {'':6}  {metrics[key]:6.4f}  {total:7d}")
    return "\n".join(lines)


def shorten(name: str, width: int) -> str:
    """Fit a name into `width` characters (at least 3) by cutting out its middle.

    The end stays because names of one data set often share their beginning.
    """
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"
