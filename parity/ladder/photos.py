"""A small data set of colour images that needs no download: patches of scikit-learn's two photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiment.system.files import replacing

SIZE = 32
COUNT = 36  # patches of each photograph for training, and half as many for testing


def write(path: Path) -> Path:
    """Write the patches as the .npz file that `data.name npz` reads: uint8 (N, 32, 32, 3), two classes."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(1)
    arrays: dict[str, list[np.ndarray]] = {"x_train": [], "y_train": [], "x_test": [], "y_test": []}
    for label, photo in enumerate(load_sample_images().images):
        for index in range(COUNT + COUNT // 2):
            top, left = (random.integers(side - 3 * SIZE) for side in photo.shape[:2])
            patch = photo[top : top + 3 * SIZE : 3, left : left + 3 * SIZE : 3]
            split = "train" if index < COUNT else "test"
            arrays[f"x_{split}"].append(patch)
            arrays[f"y_{split}"].append(np.array(label))
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **{name: np.stack(rows) for name, rows in arrays.items()})
    return path
