"""The inputs of a pair: drawn in the shape that is asked for, or a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment.errors import DataError

A_STEP = 8  # inputs of each training step


def drawn(shape: Sequence[int], steps: int) -> np.ndarray:
    """Uniform numbers in [0, 1), (8 * steps, *shape), that float32 holds exactly."""
    inputs = np.random.default_rng(1).uniform(size=(A_STEP * steps, *shape))
    return inputs.astype(np.float32).astype(np.float64)


def read(path: Path) -> np.ndarray:
    """The array of a .npy file, batch first; raises DataError where there is none."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"--inputs {path}: cannot be read as an array ({error})") from error
