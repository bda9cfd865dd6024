"""A trained run of one side made a run of the other, by both sides' `convert` commands."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from pathlib import Path

from experiment import cli
from experiment.config import Experiment
from experiment.deploy.prediction import framework_of, test_predictions
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.system import devices, processes

OTHER = {"keras": "lightning", "lightning": "keras"}

# What both sides would have written alike; the rest the new side makes itself.
CARRIED = (
    "config.yaml",
    "history.csv",
    "steps.csv",
    "metrics.json",
    "samples.png",
    "images.npz",
    "tensorboard",
)


class ConversionError(Exception):
    """A conversion went wrong; the message says how."""


def check(run: Run, to: str, out: Path) -> None:
    """Raise RunError where a run cannot become one of the side `to`, or its place is taken."""
    if framework_of(run) != OTHER[to]:
        raise RunError(f"{run.directory} is a {to} run already")
    if out.exists():
        raise RunError(f"{out} exists: name another place with --out")
    if to == "keras" and config(run).augment.kind == "torchvision":
        raise RunError(
            f"{run.directory} was trained with augment.kind torchvision, which the Keras side does not have: "
            "it could not go on there"
        )
    test_predictions(run)


def config(run: Run) -> Experiment:
    """The experiment that a run records."""
    return cli.read_config(run.directory / "config.yaml")


def build(run: Run, made: Run, to: str) -> None:
    """Make the whole record of the new run; raises RunError and ConversionError as `command` does."""
    made.checkpoints.mkdir(parents=True)
    for name in CARRIED:
        if (path := run.directory / name).is_dir():
            shutil.copytree(path, made.directory / name)
        elif path.is_file():
            shutil.copy2(path, made.directory / name)
    environment = run.read_json("environment.json")
    backend = environment.pop("backend", None)
    environment["framework"] = to
    if to == "keras":
        environment["backend"] = cli.resolve_backend(config(run))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment["converted_from"] = {
        "run": str(run.directory),
        "framework": OTHER[to],
        "backend": backend,
        "utc": now,
    }
    made.write_json("environment.json", environment)
    with tempfile.TemporaryDirectory() as arrays:
        print(f"{OTHER[to]} reads its checkpoints", flush=True)
        command(OTHER[to], "export", run, Path(arrays))
        print(f"{to} writes its own and predicts the test split", flush=True)
        command(to, "import", made, Path(arrays))


def command(side: str, action: str, run: Run, arrays: Path) -> None:
    """Run one side's `convert`; raises RunError for what it refuses, ConversionError where it breaks."""
    device = "cuda" if devices.wanted(config(run).gpus) else "cpu"
    arguments = [action, str(run.directory), str(arrays)]
    try:
        processes.start(f"{side}_impl.convert.command", arguments, device, cli.resolve_backend(config(run)))
    except processes.SideError as error:
        if error.refused:
            raise RunError(str(error)) from error
        raise ConversionError(f"{side}_impl.convert.command {action} failed:\n{error}") from error
