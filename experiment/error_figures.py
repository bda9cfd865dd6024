"""The figures of what a classifier gets wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment.evaluation import shorten
from experiment.figures import COLOURS, GREY, page


def mistakes(
    path: str | Path, images: np.ndarray, y_true: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> Path:
    """Draw wrongly classified images with what they were taken for, how surely, and what they are.

    images: (K, H, W, 3) uint8, K at least 1; y_true: (K,); probabilities: (K, C). Returns `path`.
    """
    columns = min(5, len(images))
    rows = -(-len(images) // columns)
    with page(path, (1.9 * columns, 0.5 + 2.1 * rows), "most confident mistakes") as figure:
        for i, (image, label, row) in enumerate(zip(images, y_true, probabilities, strict=True)):
            axes = figure.add_subplot(rows, columns, i + 1, frame_on=False, xticks=(), yticks=())
            axes.imshow(image, interpolation="nearest")
            taken, true = (shorten(str(names[one]), 20) for one in (row.argmax(), label))
            axes.set_title(textwrap.fill(f"{taken} {row.max():.0%}", 18), fontsize=11, pad=3)
            axes.set_xlabel(textwrap.fill(f"is: {true}", 18), fontsize=10)
    return Path(path)


def calibration(path: str | Path, found: Mapping[str, Any], title: str) -> Path:
    """Draw accuracy over confidence, and how many images stand behind each point.

    found: as `experiment.analysis.calibration` returns it. Returns `path`.
    """
    count = np.array(found["count"])
    filled, bins = count > 0, len(count)
    with page(path, (6.4, 6.6), title) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        upper.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", label="as sure as it is right")
        points = [np.array(found[name])[filled] for name in ("confidence", "accuracy")]
        upper.plot(*points, color=COLOURS[0], marker="o", linewidth=2, label="this model")
        upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        upper.set_title(f"expected calibration error {found['ece']:.3f}", loc="left", fontsize=12)
        upper.legend(loc="upper left")
        upper.grid()
        lower.bar((np.arange(bins) + 0.5) / bins, count, width=0.9 / bins, color=COLOURS[0])
        lower.set(xlabel="confidence", ylabel="images")
        lower.grid(axis="y")
    return Path(path)
