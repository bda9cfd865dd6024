"""Small training runs on scikit-learn's digits, for the tests of both sides."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from experiment.runs.record import Run

# A small network on few images: seconds on a CPU, and every feature of a run in it.
SMALL = (
    "--data.name=digits",
    "--data.limit=400",
    "--model.filters=[8,8]",
    "--model.dense_units=16",
    "--training.batch_size=50",
    "--gpus=0",
)
KILLED = """
import os, signal, sys
from experiment.training.recorder import Recorder
from {side}.train import main

step = Recorder.step

def killing(self, images, means):
    step(self, images, means)
    if (self._epoch, self._step) == ({epoch}, 2):
        os.kill(os.getpid(), signal.SIGKILL)

Recorder.step = killing
main(sys.argv[1:])
"""
COMPARED = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def rows(run: Run) -> list[list[float]]:
    """What a history holds beside times."""
    return [[row[key] for key in COMPARED] for row in run.history()]


def probabilities(run: Run) -> np.ndarray:
    return np.load(run.directory / "predictions.npz")["probabilities"]


def compiled_and_eager_losses(train: Callable[..., Run], folder: Path) -> list[np.ndarray]:
    """Every step's loss of a run in float64 on shared draws, compiled and not: two of (16,)."""
    exact = ("--training.precision=float64", "--training.dropout_masks=shared", "--run.record_steps=true")
    runs = [
        train(folder / compiled, *exact, "--training.epochs=2", f"--training.compile={compiled}")
        for compiled in ("true", "false")
    ]
    return [np.loadtxt(run.directory / "steps.csv", delimiter=",", skiprows=1)[:, 2] for run in runs]


def kill_after(epoch: int, side: str, *argv: str) -> None:
    """Train, and die without warning at the second step of the epoch that follows."""
    code = KILLED.format(side=side, epoch=epoch)
    assert subprocess.run([sys.executable, "-c", code, *argv]).returncode == -signal.SIGKILL


@contextmanager
def moments(run: Path, copies: Path) -> Iterator[dict[str, list[Path]]]:
    """What a kill -9 would leave, each time that a file of the run takes its place: copies of it, by file."""
    left: dict[str, list[Path]] = {}

    def copied(rename: Callable[..., Any]) -> Callable[..., Any]:
        def renamed(source: Any, target: Any, *rest: Any, **named: Any) -> Any:
            done, path = rename(source, target, *rest, **named), Path(target)
            if path.is_relative_to(run):
                copy = copies / f"{path.name}-{len(left.setdefault(path.name, [])) + 1}"
                left[path.name].append(copy)
                shutil.copytree(run, copy)
            return done

        return renamed

    # Lightning moves its checkpoints.
    with patch.object(os, "replace", copied(os.replace)), patch.object(shutil, "move", copied(shutil.move)):
        yield left


# Few epochs, ended by early stopping.
STOPPED = (
    "--data.name=digits",
    "--data.limit=60",
    "--model.filters=[4]",
    "--model.block_dropout=[0.1]",
    "--model.dense_units=8",
    "--training.batch_size=20",
    "--training.epochs=9",
    "--training.early_stopping.patience=2",
    "--training.early_stopping.min_delta=0.3",
    "--training.plateau.patience=1",
    "--gpus=0",
)


def assert_same_run(run: Run, whole: Run) -> None:
    """Records are equal but for times."""
    assert rows(run) == rows(whole)
    np.testing.assert_array_equal(probabilities(run), probabilities(whole))
    metrics = [one.read_json("metrics.json") for one in (run, whole)]
    for one in metrics:
        del one["train_seconds"]
    assert metrics[0] == metrics[1]
