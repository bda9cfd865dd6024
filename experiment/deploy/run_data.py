"""The data of a run: its data set, joined with the earlier run's after a warm start."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiment.config import Experiment
from experiment.data.dataset import Dataset, Recorded, Split, load, stratified
from experiment.data.images import Images
from experiment.deploy.prediction import TrainedRun, framework_of
from experiment.errors import RunError
from experiment.randomness import generator
from experiment.runs.record import Run
from experiment.system.names import spelling

IMAGES = "images.npz"


class Joined:
    """Several arrays (N, S, S, 3) uint8 as one, without a copy of them."""

    dtype = np.dtype(np.uint8)

    def __init__(self, arrays: Sequence[Images]) -> None:
        self.arrays = list(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])
        self.shape = (int(self.starts[-1]), *arrays[0].shape[1:])
        self.nbytes = int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            return self[rows[None]][0]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for array, start, end in zip(self.arrays, self.starts, self.starts[1:], strict=False):
            here = (rows >= start) & (rows < end)
            images[here] = array[rows[here] - start]
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


def load_all(experiment: Experiment, run: Run | None = None) -> tuple[Dataset, dict[str, slice]]:
    """The configured data set, with what a warm start adds of the earlier run's.

    run: the experiment's record, where there is one: what was added to the images since is left out. An
    image that the earlier run has had, whichever its split there, is not new.
    Also the rows of the test split that are `old` and `new`; nothing without a warm start.
    Raises DataError, and RunError where the earlier run's data are not what they were.
    """
    seen = None if run is None else recorded(run, experiment)
    if experiment.warm_start is None:
        return load(experiment.data, experiment.seed, seen), {}
    earlier = Run(experiment.warm_start)
    warm = TrainedRun.open(earlier.directory, framework_of(earlier))
    before, _ = load_all(warm.experiment, warm.run)
    if before.sha256 != warm.run.data_sha256:
        raise RunError(
            f"{warm.run.directory} was trained on other data than is there now (sha256 differs)\n"
            "its images must be there still, unchanged, though others may have been added"
        )
    dataset = load(experiment.data, experiment.seed, seen, digests(before))
    old, both = len(before.test), len(before.test) + len(dataset.test)
    merged = merge(before, dataset, experiment.data.replay, experiment.seed)
    return merged, {"old": slice(0, old), "new": slice(old, both)}


def digests(dataset: Dataset) -> np.ndarray:
    """Those of all images of a data set, sorted: (K,) uint64."""
    assert dataset.digests is not None
    return np.setdiff1d(dataset.digests, 0)


def recorded(run: Run, experiment: Experiment) -> Recorded | None:
    """Images of a run, as its record tells, or None where it does not."""
    try:
        names = tuple(run.read_json("environment.json")["data"]["class_names"])
    except (RunError, TypeError):  # whoever needs the record says what is wrong with it
        return None
    try:
        with np.load(run.directory / IMAGES) as arrays:
            return Recorded(names, arrays["digests"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # Of a run before there was such a file. Chosen classes do not tell which others there were.
        return None if experiment.data.classes is not None else Recorded(names, None)


def merge(old: Dataset, new: Dataset, replay: float, seed: int) -> Dataset:
    """Old classes, then those added; a share of the old training and validation images, and all test images.

    The share is drawn by `seed`, stratified. An accent that is written otherwise makes no other class.
    """
    known = {spelling(name): name for name in (*new.class_names, *old.class_names)}
    names = tuple(dict.fromkeys(known[spelling(name)] for name in (*old.class_names, *new.class_names)))
    numbers = np.array([names.index(known[spelling(name)]) for name in new.class_names])
    images = Joined([old.images, new.images])
    splits = {}
    for name in ("train", "validation", "test"):
        before, added = getattr(old, name), getattr(new, name)
        share = 1.0 if name == "test" else replay
        kept = stratified(before.labels, round(share * len(before)), generator(seed, f"replay {name}"))
        labels = np.concatenate([before.labels[kept], numbers[added.labels]])
        splits[name] = Split(
            images, labels, np.concatenate([before.indices[kept], added.indices + len(old.images)])
        )
    content = hashlib.sha256(f"{old.sha256} {new.sha256} {replay!r}".encode()).hexdigest()
    note = "; ".join(filter(None, (old.note, new.note))) or None
    both = None
    if old.digests is not None and new.digests is not None:
        both = np.concatenate([old.digests, new.digests])
    return Dataset(new.name, names, **splits, sha256=content, note=note, digests=both, folders=new.folders)
