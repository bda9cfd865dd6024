"""What TensorBoard shows of a finished run, beside the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from experiment import tracking
from experiment.config import Experiment
from experiment.events import EventWriter
from experiment.run import Run

Layers = Sequence[tuple[str, str, Sequence[str]]]  # name, kind and inputs of each


def write(run: Run, experiment: Experiment, metrics: Mapping[str, Any], layers: Layers) -> None:
    """Write a finished run's pictures, settings and graph for TensorBoard."""
    epochs = len(run.history())
    names = ("samples", "confusion", "mistakes", "calibration", "curves")
    pictures = {name: path for name in names if (path := run.directory / f"{name}.png").is_file()}
    with closing(EventWriter(run.directory / "tensorboard", epochs + 1)) as events:
        events.images(epochs, pictures)
        reached = {key: metrics[key] for key in ("test_accuracy", "test_loss", "macro_f1")}
        events.hyperparameters(tracking.settings(experiment), reached)
        if layers:
            events.graph(layers)
