"""Features: a frozen base's output for every image, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiment.config import Experiment
from experiment.data.dataset import Dataset, Split
from experiment.data.decoding import kept
from experiment.data.images import Images
from experiment.system.progress import Bar

BATCH = 256


def usable(experiment: Experiment) -> bool:
    """True where the base's output for an image never changes: it is frozen, and nothing is augmented."""
    model = experiment.model
    return model.backbone is not None and model.fine_tune_blocks == 0 and experiment.augment.kind == "none"


def replace_images(
    dataset: Dataset,
    weights: Sequence[np.ndarray],
    compute: Callable[[np.ndarray], np.ndarray],
    experiment: Experiment,
    framework: str,
) -> Dataset:
    """The data set with features in the place of the images that its splits use.

    compute: uint8 (N, S, S, 3) -> float (N, F), the frozen base. weights: the base's, which with the images,
    the precision and the framework name the features in the cache. The images are read in batches
    and their features (M, F) are memory-mapped.
    """
    key = hashlib.sha256(f"{experiment.training.precision} {framework}".encode())
    for array in weights:
        key.update(np.ascontiguousarray(array).tobytes())
    cache = Path(experiment.data.cache).expanduser()
    splits: dict[str, Split] = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
    # A limit leaves most rows of the array unused.
    rows = np.unique(np.concatenate([split.indices for split in splits.values()]))
    images = _features(dataset.images, rows, cache, key, compute)
    print(
        f"the base is frozen and nothing is augmented: the head trains on its {images.shape[1]} "
        f"features an image, computed once (in {cache})",
        flush=True,
    )
    replaced = {
        name: replace(split, images=images, indices=np.searchsorted(rows, split.indices))
        for name, split in splits.items()
    }
    return replace(dataset, **replaced)


def _features(images: Images, rows: np.ndarray, cache: Path, key: Any, compute: Callable) -> np.ndarray:
    for start in range(0, len(images), BATCH):
        key.update(images[start : start + BATCH].tobytes())
    key.update(rows.tobytes())

    def build(folder: Path) -> None:
        parts = []
        with Bar("features of the base", len(rows), "images") as bar:
            for batch in np.array_split(rows, range(BATCH, len(rows), BATCH)):
                parts.append(compute(np.ascontiguousarray(images[batch])))
                bar.update(len(batch))
        np.save(folder / "images.npy", np.concatenate(parts))

    return kept(cache, f"features-{key.hexdigest()}", build)["images"]
