"""The inputs of a pair: drawn in the shape that is asked for, or a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment.errors import DataError

A_STEP = 8  # inputs of each training step


def drawn(shapes: Sequence[Sequence[int]], steps: int) -> dict[str, np.ndarray]:
    """Uniform numbers in [0, 1) for each input, (8 * steps, *shape), that float32 holds exactly."""
    random = np.random.default_rng(1)
    inputs = [random.uniform(size=(A_STEP * steps, *shape)) for shape in shapes]
    return named([values.astype(np.float32).astype(np.float64) for values in inputs])


def named(inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs in their order, under the names that a trace's request gives those without one."""
    return {f"input_{place}": values for place, values in enumerate(inputs)}


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npy or a .npz file by name, batch first; raises DataError where they are none."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = named([loaded]) if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError) as error:
        raise DataError(f"--inputs {path}: cannot be read as arrays ({error})") from error
    if len({len(array) if array.ndim else 0 for array in arrays.values()}) != 1:
        raise DataError(f"--inputs {path}: all arrays need the same number of samples, batch first")
    return arrays
