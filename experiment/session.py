"""A run about to be trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiment import audit
from experiment.config import Experiment
from experiment.datasets import DataError, Dataset
from experiment.prediction import TrainedRun
from experiment.run import Run


@dataclass
class Session:
    """A run about to be trained: its data, its record, and the epochs that it already has."""

    experiment: Experiment
    dataset: Dataset
    run: Run
    class_weights: list[float] | None
    rows: list[dict[str, float]] = field(default_factory=list)
    resumed: bool = False
    warm: TrainedRun | None = None  # whose weights training starts from
    tests: dict[str, slice] = field(default_factory=dict)  # parts of the test split, after a warm start
    source: Path | None = None  # the run that is resumed
    checkpoint: str = "last"  # or best: which it goes on from

    @property
    def pretrained(self) -> bool:
        """Whether a base starts from its published weights: others are loaded otherwise, and none fetched."""
        return self.warm is None and not self.resumed

    def keep_epochs(self, count: int) -> None:
        """Forget recorded epochs that the checkpoint does not hold: they are trained again."""
        del self.rows[count:]

    @property
    def data_facts(self) -> dict[str, object]:
        """The data set as environment.json names it."""
        return data_facts(self.dataset, bool(self.tests))


def data_facts(dataset: Dataset, updated: bool) -> dict[str, object]:
    """A data set as environment.json names it; updated: after a warm start, which adds to older images."""
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "note": dataset.note,
        "class_names": list(dataset.class_names),
        "images": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "training_images": dict(zip(dataset.class_names, counts(dataset), strict=True)),
        "folders": dataset.folders,
        "identical_images": audit.identical(dataset),
        "remarks": audit.remarks(dataset, updated),
    }


def class_weights(experiment: Experiment, dataset: Dataset) -> list[float] | None:
    """The weight of each class in the training loss, or None.

    `balanced` is N / (classes * images of the class), as scikit-learn's compute_class_weight has it.
    Raises DataError where the number of given weights is not the number of classes.
    """
    wanted, classes = experiment.training.class_weights, len(dataset.class_names)
    if wanted == "balanced":
        images = np.maximum(counts(dataset), 1)
        return (len(dataset.train) / (classes * images)).tolist()
    if isinstance(wanted, list) and len(wanted) != classes:
        raise DataError(f"training.class_weights has {len(wanted)} weights for {classes} classes")
    return wanted


def counts(dataset: Dataset) -> list[int]:
    """How many training images each class has."""
    return np.bincount(dataset.train.labels, minlength=len(dataset.class_names)).tolist()
