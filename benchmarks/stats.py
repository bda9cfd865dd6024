"""Medians, spreads and ratios of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

DRAWS = 10_000


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, first quartile, third quartile)."""
    low, middle, high = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return float(middle), float(low), float(high)


def ratio(one: Sequence[float], other: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """median(one) / median(other) with a percentile bootstrap interval: (ratio, low, high).

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; both samples are drawn anew.
    """
    found = float(np.median(one) / np.median(other))
    if min(len(one), len(other)) < 2:
        return found, found, found
    interval = stats.bootstrap(
        (one, other),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        n_resamples=DRAWS,
        confidence_level=level,
        method="percentile",
        rng=0,
    ).confidence_interval
    return found, float(interval.low), float(interval.high)
