"""The whole-run rung: both real `train` commands, float64, on every shared draw; their records compared."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiment.run import Run
from parity.tolerances import WHOLE_RUN

SIDES = ("keras", "lightning")

# What makes two runs comparable to rounding. The biases are drawn because from biases of exactly zero the
# sign of rounding noise decides what ReLU passes on black pixels, and two correct runs part company.
IDENTITY = (
    "--training.precision=float64",
    "--training.dropout_masks=shared",
    "--model.initial_biases=uniform",
    "--run.record_steps=true",
    "--gpus=0",
)


@dataclass(frozen=True)
class Difference:
    """The largest difference found in one quantity, and how large it may be."""

    quantity: str
    largest: float
    tolerance: float
    where: str

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance  # false for NaN, too


def train_both(folder: Path, options: Sequence[str]) -> dict[str, Run]:
    """Run both `train` commands with `IDENTITY` and `options`; raises RuntimeError where one fails."""
    return {side: train(side, folder / side, options) for side in SIDES}


def train(side: str, directory: Path, options: Sequence[str]) -> Run:
    """Run one side's `train` command with `IDENTITY` and `options`.

    Raises RuntimeError, with what the command said, where it fails.
    """
    command = [sys.executable, "-m", f"{side}_impl.train", *IDENTITY, *options, "--run.dir", str(directory)]
    if side == "keras":
        command += ["--backend", "tensorflow"]  # the others compute parts of float64 in float32
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return Run(directory)


def compare(one: Run, other: Run) -> list[Difference]:
    """Every quantity of two run records that must agree; a differing length counts as infinitely far."""
    steps = [np.loadtxt(run.directory / "steps.csv", delimiter=",", skiprows=1) for run in (one, other)]
    histories = [run.history_columns() for run in (one, other)]
    metrics = [run.read_json("metrics.json") for run in (one, other)]
    arrays = [np.load(run.directory / "predictions.npz") for run in (one, other)]
    pairs = {"step loss": tuple(table[:, 2] for table in steps)}
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        pairs[name] = tuple(np.array(history[name]) for history in histories)
    for name in ("test_loss", "best_epoch", "stopped_epoch"):
        pairs[name] = tuple(np.array([m[name]], dtype=float) for m in metrics)
    pairs["predictions"] = tuple(a["probabilities"] for a in arrays)
    pairs["parameters"] = tuple(np.array([*m["parameters"].values()], dtype=float) for m in metrics)
    return [_difference(name, *pair) for name, pair in pairs.items()]


def _difference(quantity: str, one: np.ndarray, other: np.ndarray) -> Difference:
    tolerance = WHOLE_RUN[quantity]
    if one.shape != other.shape:
        return Difference(quantity, np.inf, tolerance, f"shapes {one.shape} and {other.shape}")
    distances = np.abs(one - other)
    beyond = np.argwhere(~(distances <= tolerance))
    where = f"first beyond it at {tuple(map(int, beyond[0]))}" if len(beyond) else ""
    return Difference(quantity, float(distances.max()), tolerance, where)


def table(differences: Sequence[Difference]) -> str:
    """The differences as aligned text, one a line."""
    lines = []
    for d in differences:
        verdict = "passed" if d.passed else "FAILED"
        lines.append(f"{d.quantity:<14} {d.largest:.1e} of {d.tolerance:.0e}  {verdict}  {d.where}")
    return "\n".join(lines)
