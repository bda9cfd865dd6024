"""Medians, spreads and ratios of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 10_000


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, first quartile, third quartile)."""
    low, middle, high = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return float(middle), float(low), float(high)


def ratio(one: Sequence[float], other: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """median(one) / median(other) with a percentile bootstrap interval: (ratio, low, high).

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; both samples are drawn anew.
    """
    draw = np.random.default_rng(0)
    medians = [
        np.median(draw.choice(np.asarray(values, dtype=float), (DRAWS, len(values))), axis=1)
        for values in (one, other)
    ]
    low, high = np.percentile(medians[0] / medians[1], [50 * (1 - level), 50 * (1 + level)])
    return float(np.median(one) / np.median(other)), float(low), float(high)
