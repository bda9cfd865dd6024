"""python -m experiment promote RUN: make a registered run the champion, unless it does worse than
that one.

Both models classify the run's test images; where the run was a warm start, those of the earlier run and the
new ones apart. The champion gives way only if the run's accuracy on neither falls by more than the margin.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.deploy.prediction import BATCH, framework_of, test_predictions
from experiment.deploy.run_data import load_all
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.system import devices
from experiment.tracking import mlflow as tracking

CHAMPION = "champion"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where the champion stays."""
    parser = cli.PlainParser(
        prog="experiment promote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run that was trained with --mlflow.register_as"
    )
    parser.add_argument(
        "--margin", type=float, default=0.01, help="how much accuracy may fall (default 0.01)"
    )
    given = parser.parse_args(argv)
    if not 0 <= given.margin <= 1:
        parser.error("--margin must lie in [0, 1]")
    return cli.guarded(lambda: _answered(Run(given.run), given.margin))


def _answered(run: Run, margin: float) -> int:
    try:
        return promote(run, margin)
    except tracking.StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def promote(run: Run, margin: float) -> int:
    """Move the alias champion to the run's version, or say why not; returns the exit code.

    Raises RunError where the run is not registered, or its test images are not what they were; StoreError
    where MLflow fails.
    """
    framework_of(run)  # it is a finished run
    facts = tracking.recorded(run)
    if "version" not in facts:
        raise RunError(f"{run.directory} is not in a registry: train it with --mlflow.register_as NAME")
    if not devices.installed("mlflow"):
        raise RunError("promote needs MLflow: pip install mlflow")
    experiment = cli.read_config(run.directory / "config.yaml")
    tracking.check(experiment)
    name = facts["name"]
    with tracking.asking(experiment):
        client = tracking.client(experiment)
        champion = client.get_registered_model(name).aliases.get(CHAMPION)
        if champion is None:
            client.set_registered_model_alias(name, CHAMPION, facts["version"])
    if champion is None:
        print(f"{name} had no champion: version {facts['version']} is it now")
        return 0
    if str(champion) == str(facts["version"]):
        print(f"{name} version {champion} is the champion already")
        return 0
    dataset, parts = load_all(experiment, run)
    if dataset.sha256 != run.data_sha256:
        raise RunError(f"{run.directory} was tested on other images than are there now (sha256 differs)")
    labels, probabilities = test_predictions(run)
    hits = probabilities.argmax(1) == labels
    with tracking.asking(experiment):
        theirs = classify(client, name, champion, dataset)
    before = np.array([dataset.class_names[i] for i in labels]) == theirs
    falls = []
    print(f"{'test images':<12} {'version ' + str(champion):>12} {'version ' + str(facts['version']):>12}")
    for part, rows in (parts or {"test": slice(None)}).items():
        old, new = before[rows].mean(), hits[rows].mean()
        print(f"{part:<12} {old:>12.4f} {new:>12.4f}")
        if new < old - margin:
            falls.append(f"the {part} images by {old - new:.4f}")
    if falls:
        print(f"not promoted: accuracy falls on {' and on '.join(falls)}, more than {margin:g}")
        return 1
    with tracking.asking(experiment):
        client.set_registered_model_alias(name, CHAMPION, facts["version"])
    print(f"version {facts['version']} of {name} is the champion now")
    return 0


def classify(client: Any, name: str, version: Any, dataset: Any) -> np.ndarray:
    """The names of the classes that a registered version finds in the test images: (N,) str."""
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
    context: Any = model.unwrap_python_model()
    names = np.array(context.class_names)
    test, found = dataset.test, []
    for start in range(0, len(test), BATCH):
        images, _ = test.batch(np.arange(start, min(start + BATCH, len(test))))
        found.append(np.asarray(model.predict(images)).argmax(1))
    return names[np.concatenate(found)]
