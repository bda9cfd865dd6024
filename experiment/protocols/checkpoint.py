"""A run's checkpoints as plain arrays in Keras's layout: how a run goes from one framework to the other.

One .npz a checkpoint. `best` holds `weights/LAYER/NAME`; `last` also what training goes on from: the
optimizer's slots as `SLOT/LAYER/NAME` (of `experiment.optimizers`), `iterations` (steps taken) and
`learning_rate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiment.cli import Framework, PlainParser
from experiment.data.dataset import Dataset
from experiment.deploy.prediction import TrainedRun
from experiment.deploy.run_data import load_all
from experiment.errors import RunError
from experiment.runs.record import brief
from experiment.system.files import replacing
from experiment.training import lifecycle
from experiment.training.lifecycle import Session
from experiment.training.recorder import Recorder

Arrays = dict[str, np.ndarray]

ROUNDING = 1e-6  # relative: Keras keeps the learning rate in the precision of the run


def parse(framework: Framework, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `python -m <framework>_impl.convert.command`; exits with 2 on a mistake."""
    parser = PlainParser(
        prog=f"{framework}_impl.convert.command",
        description="Write a run's checkpoints as plain arrays, or make them from such arrays. "
        "`python -m parity convert` does both, and checks the predictions.",
    )
    parser.add_argument("action", choices=("export", "import"), help="checkpoints to arrays, or the reverse")
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a finished run")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where best.npz and last.npz lie")
    return parser.parse_args(argv)


def export_run(trained: TrainedRun, folder: Path, read: Callable[[TrainedRun], dict[str, Arrays]]) -> int:
    """Write what `read` finds in the run's checkpoints into `folder`; returns the exit code.

    Raises RunError where the last checkpoint does not stand where the record ends.
    """
    checkpoints = read(trained)
    images = trained.run.read_json("environment.json")["data"]["images"]["train"]
    epochs = len(trained.run.history())
    expected = epochs * -(-images // trained.experiment.training.batch_size)
    if (found := int(checkpoints["last"]["iterations"])) != expected:
        raise RunError(
            f"{trained.run.checkpoints}: the last checkpoint is of step {found}, "
            f"the record of {epochs} epochs ends at step {expected}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in checkpoints.items():
        with replacing(folder / f"{name}.npz") as path:
            np.savez(path, allow_pickle=False, **arrays)
    return 0


def import_run(
    trained: TrainedRun,
    folder: Path,
    write: Callable[[Session, Recorder, dict[str, Arrays]], None],
    read: Callable[[TrainedRun], dict[str, Arrays]],
    evaluate: Callable[[TrainedRun, Dataset], tuple[np.ndarray, float, dict[str, int]]],
) -> int:
    """Make the run's checkpoints from the arrays in `folder` and predict the test split anew.

    The run is a whole record but for its checkpoints; `write` makes them, `read` reads them back, and
    `evaluate` gives probabilities, test loss and the numbers of parameters. Returns the exit code: 1 where
    what is read back is not what was given, to the last bit. Raises DataError, and RunError for other data
    than the run's.
    """
    given = {name: _load(folder / f"{name}.npz") for name in ("best", "last")}
    experiment, run = trained.experiment, trained.run
    run.claim()
    dataset, tests = load_all(experiment, run)
    if dataset.sha256 != run.data_sha256:
        raise RunError(
            "the run was trained on other data than is there now (sha256 differs): it cannot be checked"
        )
    weights = lifecycle.class_weights(experiment, dataset)
    session = Session(experiment, dataset, run, weights, run.history(), resumed=True, tests=tests)
    recorder = Recorder(run, experiment, len(dataset.train), session.rows)
    before = run.read_json("metrics.json")
    recorder.status, recorder.message = before["status"], before["message"]
    write(session, recorder, given)
    if wrong := [name for name, back in read(trained).items() if not _same(given[name], back)]:
        print(f"error: {' and '.join(wrong)} did not come through the checkpoints unchanged", file=sys.stderr)
        return 1
    lifecycle.finish(session, recorder, *evaluate(trained, dataset))
    return 0


def _load(path: Path) -> Arrays:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error


def _same(given: Arrays, back: Arrays) -> bool:
    # The learning rate comes from the record again, as a resumed run's does, and not through the arrays.
    return given.keys() == back.keys() and all(
        np.allclose(array, back[name], rtol=ROUNDING, atol=0)
        if name == "learning_rate"
        else np.array_equal(array, back[name])
        for name, array in given.items()
    )
