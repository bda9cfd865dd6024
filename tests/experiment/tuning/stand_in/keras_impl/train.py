"""Stands in for `keras_impl.train` where a search is tested: quick epochs, their values made up.

Appends a line, the run's name and whether it was resumed, to the file STARTS. 13 dense units fail, 14 are
refused. After the run and epoch that HOLD names ("0002:1") it stands still until it is ended or the file
RELEASE is there, so that no test has to be quicker than a training run.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path

from experiment.cli import read_config
from experiment.config import Experiment
from experiment.runs.record import HISTORY, Run

SECONDS = 0.05  # an epoch takes


def value(experiment: Experiment, epoch: int) -> float:
    """Best at a learning rate of 10^-2.5 and many units; rises with the epochs."""
    off = (math.log10(experiment.training.learning_rate) + 2.5) ** 2 / 4
    return (1 - off) * (1 - 0.5**epoch) - 1 / experiment.model.dense_units


def main() -> int:
    parser = argparse.ArgumentParser()
    for option in ("--config", "--run.dir", "--run.overwrite", "--resume"):
        parser.add_argument(option)
    given = vars(parser.parse_args())
    directory = Path(given["resume"] or given["run.dir"])
    with Path(os.environ["STARTS"]).open("a") as file:
        file.write(f"{directory.name} {'resumed' if given['resume'] else 'started'}\n")
    experiment = read_config(directory / "config.yaml" if given["resume"] else Path(given["config"]))
    if experiment.model.dense_units == 13:
        print("out of memory", file=sys.stderr)
        return 1
    if experiment.model.dense_units == 14:
        print("error: there is no such data", file=sys.stderr)
        return 2
    run = Run(directory)
    if not given["resume"]:
        settings = experiment.run.model_copy(update={"dir": str(directory), "overwrite": True})
        run = Run.create(experiment.model_copy(update={"run": settings}), "keras", "none")
        run.write_json("environment.json", {"cpu": "a cpu", "cores": 2, "git_revision": "none", "utc": "now"})
    rows = run.history()
    for epoch in range(len(rows) + 1, experiment.training.epochs + 1):
        time.sleep(SECONDS)
        found = value(experiment, epoch)
        rows.append({"epoch": epoch, "val_accuracy": found, "val_loss": 1 - found, "seconds": SECONDS})
        (run.checkpoints / "last").touch()
        run.write_history([dict.fromkeys(HISTORY, 0.0) | row for row in rows])
        while f"{directory.name}:{epoch}" == os.environ["HOLD"] and not Path(os.environ["RELEASE"]).exists():
            time.sleep(0.02)
    run.write_json("metrics.json", {"status": "completed", "test_accuracy": rows[-1]["val_accuracy"]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
