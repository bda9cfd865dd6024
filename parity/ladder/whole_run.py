"""The whole-run rung: both real `train` commands, float64, on every shared draw; their records compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiment.optimizers import SLOTS
from experiment.runs.record import Run, step_losses
from experiment.system import processes
from parity.checks import Check, compare
from parity.ladder.tolerances import ROWS

SIDES = ("keras", "lightning")
BOUNDS = ROWS["whole run"].bounds
# A whole run that differs: what of its first step's loss is rounding, and how much two correct runs part
# further within ten steps.
ROUNDING, JUMP = 1e-12, 1e3

# What makes two runs comparable to rounding. The biases are drawn because from biases of exactly zero the
# sign of rounding noise decides what ReLU passes on black pixels, and two correct runs part company.
IDENTITY = (
    "--training.precision=float64",
    "--training.dropout_masks=shared",
    "--model.initial_biases=uniform",
    "--run.record_steps=true",
)

DIGITS = ("--data.name=digits", "--augment.horizontal_flip=false")
# Both callbacks act and the loss carries every term. No epoch improves by min_delta, so that training
# stops after 23. The learning rate is low because two correct runs part exponentially: from 1e-14 at the
# first step, at 1e-3 and with batches of 24, to 1e-9 after some 100 steps.
EVENTS = (
    "--training.epochs=30",
    "--training.batch_size=48",
    "--training.learning_rate=2e-4",
    "--training.plateau.patience=2",
    "--training.plateau.factor=0.8",
    "--training.plateau.min_learning_rate=1e-4",
    "--training.early_stopping.patience=22",
    "--training.early_stopping.min_delta=9",
    "--training.early_stopping.restore_best_weights=false",
    "--training.l2=1e-4",
    "--training.label_smoothing=0.1",
    "--training.class_weights=balanced",
)
# 14 steps an epoch, the last of 33 images.
SMALL = ("--model.filters=[8,16]", "--model.dense_units=32", "--data.limit=730")
CNN = (*DIGITS, *SMALL, *EVENTS)
# Every optimizer but Adam, which all other runs have; the plateau acts after every second epoch. Under a
# momentum two correct runs part sooner: at a learning rate of 5e-4, within 20 steps.
SHORT = (
    "--training.epochs=10",
    "--training.plateau.min_delta=9",
    "--training.plateau.min_learning_rate=2e-5",
)
OPTIMIZERS = {
    "adamw": (*CNN, *SHORT, "--training.optimizer=adamw"),
    "sgd": (
        *CNN,
        *SHORT,
        "--training.optimizer=sgd",
        "--training.momentum=0.9",
        "--training.nesterov=true",
        "--training.weight_decay=1e-3",
        "--training.learning_rate=1e-4",
    ),
}
IMAGES = (*SMALL, *EVENTS)  # a folder of real images, CIFAR-10 among them
# A base's head alone, on the features that the frozen base gives once.
HEAD = (
    "--data.name=digits",
    "--data.limit=60",
    "--augment.kind=none",
    "--training.epochs=12",
    "--training.batch_size=2",
)


def train_both(folder: Path, options: Sequence[str], device: str = "cpu") -> dict[str, Run]:
    """Run both `train` commands with `IDENTITY` and `options`; raises SideError where one fails."""
    runs = processes.together([partial(train, side, folder / side, options, device) for side in SIDES])
    return dict(zip(SIDES, runs, strict=True))


def train(
    side: str,
    directory: Path,
    options: Sequence[str],
    device: str = "cpu",
    mutation: str | None = None,
    weights: bool = True,
) -> Run:
    """Run one side's `train` command with `IDENTITY` and `options`, and write its weights beside the record.

    mutation: an alignment that is off, on the Lightning side. weights: false where they are not wanted, or
    an optimizer is not this project's own. Raises SideError, with what the command said, where it fails.
    """
    gpus = "--gpus=1" if device == "cuda" else "--gpus=0"
    arguments = [*IDENTITY, gpus, *options, "--run.dir", str(directory)]
    if side == "keras":
        arguments += ["--backend", "tensorflow"]  # the others compute parts of float64 in float32
    if mutation is None:
        processes.start(f"{side}_impl.train", arguments, device)
    else:
        processes.start("lightning_impl.mutations", [mutation, "train", *arguments], device)
    if weights:
        processes.start(
            f"{side}_impl.convert.command", ["export", str(directory), str(directory / "weights")], device
        )
    # The checkpoints are large, and the arrays hold what is in them.
    shutil.rmtree(directory / "checkpoints")
    return Run(directory)


def compare_runs(one: Run, other: Run) -> list[Check]:
    """Every quantity of two run records that must agree; a differing length counts as infinitely far."""
    histories = [run.history_columns() for run in (one, other)]
    metrics = [run.read_json("metrics.json") for run in (one, other)]
    arrays = [np.load(run.directory / "predictions.npz") for run in (one, other)]
    pairs = {"step loss": (step_losses(one), step_losses(other))}
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        pairs[name] = (np.array(histories[0][name]), np.array(histories[1][name]))
    for name in ("test_loss", "best_epoch", "stopped_epoch"):
        pairs[name] = (np.array([float(metrics[0][name])]), np.array([float(metrics[1][name])]))
    pairs["predictions"] = (arrays[0]["probabilities"], arrays[1]["probabilities"])
    counts = [np.array([*m["parameters"].values()], dtype=float) for m in metrics]
    pairs["parameters"] = (counts[0], counts[1])
    checks = [compare(name, *pair, BOUNDS[name]) for name, pair in pairs.items()]
    return [*checks, *_weights(one, other)]


def diagnose(checks: Sequence[Check], records: dict[str, Run]) -> dict[str, str] | None:
    """What a whole run that differs says of its callbacks, or of the first step that differs."""
    failed = {check.quantity: check for check in checks if not check.passed}
    if not failed:
        return None
    rates = {side: run.history_columns()["learning_rate"] for side, run in records.items()}
    events = {side: [e for e in range(1, len(r)) if r[e] != r[e - 1]] for side, r in rates.items()}
    found = {"rung": "whole run", "layer": ""}
    lengths = {side: len(r) for side, r in rates.items()}
    if "learning_rate" in failed and events["lightning"][:1] != events["keras"][:1]:
        first = {side: (e[0] + 1 if e else "never") for side, e in events.items()}
        cause = (
            "the learning rate is reduced at another epoch (Keras acts at `wait >= patience`, torch after it)"
        )
        return found | {
            "cause": cause,
            "evidence": f"first at epoch {first['lightning']} for Keras's {first['keras']}",
        }
    if lengths["keras"] != lengths["lightning"]:
        text = f"after {lengths['lightning']} epochs for Keras's {lengths['keras']}"
        return found | {"cause": "early stopping acts at another epoch", "evidence": text}
    if "step loss" not in failed:
        return found | {"cause": "no known pattern", "evidence": ", ".join(failed)}
    return found | _of_steps(*(step_losses(records[side]) for side in SIDES))


def _of_steps(keras: np.ndarray, lightning: np.ndarray) -> dict[str, str]:
    """Whether a step parted two runs of equal length, or training enlarged what was rounding."""
    differences = apart(keras, lightning)
    step = first_beyond(differences, BOUNDS["step loss"])
    assert step is not None
    first, at = differences[0], differences[step - 1]
    before = float(differences[max(step - 11, 0) : step - 1].max(initial=0.0))
    grown = f"step {step} is the first beyond it: {at:.1e}, after {before:.1e} in the ten before"
    if step > 1 and first <= ROUNDING and at <= JUMP * before:
        return {
            "cause": "rounding that training enlarged (a lower learning rate or larger batches hold it down)",
            "evidence": f"the first step differs by {first:.1e}; {grown}",
        }
    return {"cause": "a step that is taken otherwise", "evidence": grown}


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|one - other| at every step that both have."""
    count = min(len(one), len(other))
    return np.abs(one[:count] - other[:count])


def first_beyond(differences: np.ndarray, bound: float) -> int | None:
    """The first step, counted from 1, that differs by more than `bound`, or by NaN; None where none does."""
    steps = np.flatnonzero(~(differences <= bound))
    return int(steps[0]) + 1 if len(steps) else None


def _weights(one: Run, other: Run) -> list[Check]:
    """The largest difference in the last epoch's weights, BatchNorm statistics and optimizer slots."""
    found = [np.load(run.directory / "weights" / "last.npz") for run in (one, other)]
    names = [sorted(name for name in arrays.files if "/" in name) for arrays in found]
    if names[0] != names[1]:
        odd = set(names[0]) ^ set(names[1])
        return [
            Check("weights", np.inf, BOUNDS["weights"], f"only one side has {', '.join(sorted(odd)[:3])}")
        ]
    checks = []
    for kind in ("weights", "statistics", *SLOTS):
        mine = [name for name in names[0] if _kind(name) == kind]
        each = [compare(f"{kind}", found[0][name], found[1][name], BOUNDS[kind]) for name in mine]
        if each:
            worst = max(range(len(each)), key=lambda i: each[i].largest)
            largest, passed = each[worst].largest, each[worst].passed
            checks.append(Check(kind, largest, BOUNDS[kind], "" if passed else f"{mine[worst]} is furthest"))
    return checks


def _kind(name: str) -> str:
    if name.endswith(("moving_mean", "moving_variance")):
        return "statistics"
    return name.split("/", 1)[0]
