"""A model updated with new data: what a warm start takes from an earlier run, its weights and its images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiment.config import Experiment
from experiment.data.dataset import OWN, Dataset
from experiment.deploy.prediction import TrainedRun, framework_of
from experiment.deploy.run_data import IMAGES, digests
from experiment.errors import RunError
from experiment.runs.record import Run

HEAD = ("logits/kernel", "logits/bias")  # whose last axis is the classes


def opened(experiment: Experiment, framework: str) -> TrainedRun | None:
    """The run that `warm_start` names; raises RunError where its model is not the configured one."""
    if experiment.warm_start is None:
        return None
    directory = Path(experiment.warm_start)
    if (other := framework_of(Run(directory))) != framework:
        raise RunError(
            f"warm_start {directory} is a {other} run: "
            f"make it one of {framework} with python -m parity convert {directory} --to {framework}"
        )
    warm = TrainedRun.open(directory, framework)
    pairs = {f"model.{key}": (getattr(warm.experiment.model, key), value) for key, value in experiment.model}
    for key in ("image_size", "background", "bits"):
        pairs[f"data.{key}"] = (getattr(warm.experiment.data, key), getattr(experiment.data, key))
    for key, (before, now) in pairs.items():
        if before != now and key not in ("model.weights", "model.initial_biases", "model.fine_tune_blocks"):
            raise RunError(f"warm_start {directory} has {key} {before}, not {now}: it must be the same")
    return warm


def record(run: Run, dataset: Dataset) -> None:
    """Write images.npz, by which the images of a run are known where others are added to them."""
    if dataset.name in OWN:
        run.write_arrays(IMAGES, digests=digests(dataset))


def grown(
    old: Mapping[str, np.ndarray], fresh: Mapping[str, np.ndarray], classes: int
) -> dict[str, np.ndarray]:
    """An earlier run's weights for a model of as many classes or more: its logits kept, others as they are.

    old, fresh: weights by `LAYER/NAME`. classes: how many the old run has, which come first.
    """
    found = dict(old)
    for name in HEAD:
        found[name] = fresh[name].copy()
        found[name][..., :classes] = old[name]
    return found
