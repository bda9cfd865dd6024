"""BatchNorm's unbiased variance passes where it is next to nothing, and all that parts torch from Keras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity.ladder import moving_variance, rungs
from parity.traces.pair import Pair
from tests.parity.diagnosis.traced import layer, pair

MOMENTUM, STEPS = 0.9, 3
INITIAL = np.array([0.8, 1.3])
BATCHES = np.array([[1.0, 2.0], [1.5, 0.5], [0.7, 3.0]])
LAYERS = [
    layer("bn", "BatchNormalization", weights={"moving_variance": [2]}, settings={"momentum": MOMENTUM})
]


def ways(factor: float) -> list[np.ndarray]:
    """The moving variance after each step, of batches' variances times a factor."""
    values = [INITIAL]
    for variance in BATCHES:
        values.append(MOMENTUM * values[-1] + (1 - MOMENTUM) * factor * variance)
    return values


def traced(folder: Path, values: int, factor: float, foreign: bool = True) -> Pair:
    keras, torch = ways(1.0), ways(factor)
    arrays = [
        {
            "initial/bn/moving_variance": INITIAL,
            "step/bn/moving_variance": way[1],
            "final/bn/moving_variance": way[-1],
            "train/bn": np.zeros((values, 2)),
            "losses": np.zeros(STEPS),
        }
        for way in (keras, torch)
    ]
    return pair(folder, LAYERS, arrays[0], arrays[1], foreign=foreign)


def passes(both: Pair) -> bool:
    checks = [*rungs.one_step(both), *rungs.trajectory(both)]
    return all(check.passed for check in checks if "moving_variance" in check.quantity)


@pytest.mark.parametrize(
    ("values", "foreign", "expected"), [(3335, True, True), (3300, True, False), (3335, False, False)]
)
def test_bessels_correction_passes_where_it_is_below_float32s_bound(
    tmp_path: Path, values: int, foreign: bool, expected: bool
) -> None:
    both = traced(tmp_path, values, values / (values - 1), foreign)
    assert passes(both) == expected
    assert bool(moving_variance.notes(both)) == expected


def test_another_difference_of_that_size_fails(tmp_path: Path) -> None:
    assert not passes(traced(tmp_path, 10000, 1 + 1.01e-4))


def test_equal_variances_pass_without_a_note(tmp_path: Path) -> None:
    both = traced(tmp_path, 10000, 1.0)
    assert passes(both)
    assert moving_variance.notes(both) == []
