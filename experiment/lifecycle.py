"""What both sides do before and after training, so that their run records are of one make."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiment import (
    analysis,
    audit,
    board,
    error_figures,
    evaluation,
    figures,
    randomness,
    ranks,
    update,
)
from experiment.board import Layers
from experiment.cli import read_config
from experiment.config import Experiment
from experiment.datasets import Dataset
from experiment.progress import Recorder
from experiment.run import Run, RunError
from experiment.session import Session, class_weights

__all__ = ["Layers", "RunError", "Session", "begin", "class_weights", "finish"]


def begin(experiment: Experiment, framework: str, resume: Path | None) -> Session:
    """Load the data and make, or reopen, the run record.

    Raises DataError for the data; RunError where the run cannot be resumed or its place is taken.
    """
    if resume is not None and ranks.rank() == 0:
        Run(resume).claim()
    warm = update.opened(experiment, framework)
    dataset, tests = update.load_all(experiment, None if resume is None else Run(resume))
    weights = class_weights(experiment, dataset)
    print(
        f"data: {dataset.name}, {len(dataset.class_names)} classes; {len(dataset.train)} training, "
        f"{len(dataset.validation)} validation, {len(dataset.test)} test images",
        flush=True,
    )
    if ranks.rank() == 0:
        for remark in audit.remarks(dataset, bool(tests)):
            print(f"note: {remark}", flush=True)
    if ranks.rank() > 0:  # the first process alone keeps the record: this one's goes nowhere
        run = Run(Path(tempfile.mkdtemp(prefix="rank")))
        run.checkpoints.mkdir()
        rows = Run(resume).history() if resume is not None else []
        return Session(experiment, dataset, run, weights, rows, resume is not None, warm, tests, resume)
    if resume is not None:
        return replace(
            _reopen(experiment, framework, Run(resume), dataset, weights), tests=tests, source=resume
        )
    try:
        run = Run.create(experiment, framework, dataset.name)
    except OSError as error:
        raise RunError(str(error)) from error
    update.record(run, dataset)
    if warm is not None:  # its weights: none need to be fetched
        model = experiment.model.model_copy(update={"weights": "random"})
        experiment = experiment.model_copy(update={"model": model})
    return Session(experiment, dataset, run, weights, warm=warm, tests=tests)


def _reopen(
    experiment: Experiment, framework: str, run: Run, dataset: Dataset, weights: list[float] | None
) -> Session:
    rows = run.history()
    environment = run.directory / "environment.json"
    if not rows or not environment.is_file():
        raise RunError(f"{run.directory}: no epoch was finished, there is nothing to resume: start it anew")
    before = run.read_json("environment.json")
    if before["framework"] != framework:
        raise RunError(
            f"{run.directory} is a {before['framework']} run: resume it with {before['framework']}"
        )
    if before["data"]["sha256"] != dataset.sha256:
        raise RunError(f"{run.directory} was trained on other data (sha256 differs): it cannot be resumed")
    planned = read_config(run.directory / "config.yaml").training.epochs
    ended = run.finished and run.read_json("metrics.json")["status"] == "completed"
    if experiment.training.epochs <= (planned if ended else len(rows) - 1):
        raise RunError(
            f"{run.directory} ended after {len(rows)} epochs: "
            "give more with --training.epochs, or start a new run"
        )
    for name in ("metrics.json", "predictions.npz"):  # of the run as it ended before: it goes on
        (run.directory / name).unlink(missing_ok=True)
    run.write_config(experiment)
    return Session(experiment, dataset, run, weights, rows, resumed=True)


def samples(dataset: Dataset, experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """The first 25 images that training sees, and their labels: uint8 (25, S, S, 3), int64 (25,)."""
    return dataset.train.batch(randomness.training_order(experiment, 0, dataset.train.labels)[:25])


def draw_samples(session: Session, augmented: np.ndarray | None) -> None:
    """Write samples.png: `samples`, and beside each the same image augmented (float, in 0..255)."""
    images, labels = samples(session.dataset, session.experiment)
    if augmented is not None:
        augmented = np.clip(np.rint(augmented), 0, 255).astype(np.uint8)
    figures.samples(
        session.run.directory / "samples.png", images, labels, augmented, session.dataset.class_names
    )


def use_best(experiment: Experiment) -> bool:
    """Whether the model that training leaves is the best epoch's, not the last's."""
    stopping = experiment.training.early_stopping
    return stopping.patience is not None and stopping.restore_best_weights


@contextmanager
def checking(session: Session) -> Iterator[None]:
    """What is refused inside leaves no run record behind."""
    try:
        yield
    except RunError:
        _remove(session)
        raise


def _remove(session: Session) -> None:
    if not session.resumed:
        shutil.rmtree(session.run.directory, ignore_errors=True)


def discard(session: Session, recorder: Recorder) -> int:
    """Remove the record of a run that finished no epoch, say so, and return the command's exit code."""
    _remove(session)
    print(f"{recorder.message}\nno epoch was finished: nothing is kept", file=sys.stderr)
    return recorder.exit_code


def finish(
    session: Session,
    recorder: Recorder,
    probabilities: np.ndarray,
    test_loss: float,
    parameters: dict[str, int],
    layers: Layers = (),
) -> int:
    """Write the results of a trained model, print them, and return the exit code of the command.

    layers: name, kind and inputs of each, for TensorBoard's graph.
    """
    run, dataset, rows = session.run, session.dataset, recorder.rows
    labels = dataset.test.labels
    results = evaluation.evaluate(labels, probabilities, dataset.class_names)
    best = recorder.best_row
    assert best is not None
    metrics = {
        "status": recorder.status,
        "message": recorder.message,
        "parameters": parameters,
        "test_loss": test_loss,
        **results,
        "monitor": recorder.training.monitor,
        "best_epoch": int(best["epoch"]),
        "stopped_epoch": int(rows[-1]["epoch"]),
        "weights_of_epoch": int((best if use_best(session.experiment) else rows[-1])["epoch"]),
        "train_seconds": sum(row["seconds"] for row in rows),
    }
    errors = analysis.calibration(labels, probabilities)
    matrix = evaluation.confusion(labels, probabilities)
    metrics |= {"calibration": errors, "most_confused": analysis.confused(matrix, dataset.class_names)}
    run.write_arrays("predictions.npz", y_true=labels, probabilities=probabilities)
    title = run.directory.name
    figures.curves(run.directory / "curves.png", run.history_columns(), int(best["epoch"]), title)
    figures.confusion(run.directory / "confusion.png", matrix, dataset.class_names, title)
    error_figures.calibration(run.directory / "calibration.png", errors, title)
    wrong = analysis.mistakes(labels, probabilities)
    if len(wrong):
        images, true = dataset.test.batch(wrong)
        path = run.directory / "mistakes.png"
        error_figures.mistakes(path, images, true, probabilities[wrong], dataset.class_names)
    if session.tests:
        hits = probabilities.argmax(1) == labels
        metrics["test_sets"] = {
            name: {"images": len(hits[part]), "accuracy": float(hits[part].mean())}
            for name, part in session.tests.items()
            if part.stop > part.start  # what was added may have no test images
        }
    run.write_json("metrics.json", metrics)
    board.write(run, session.experiment, metrics, layers)
    print(f"\n{evaluation.report(results)}\n")
    print(
        f"test accuracy {results['test_accuracy']:.4f}, test loss {test_loss:.4f}, "
        f"best epoch {metrics['best_epoch']}, {parameters['total']:,} parameters "
        f"({parameters['trainable']:,} trainable)"
    )
    for name, found in metrics.get("test_sets", {}).items():
        print(f"on the {name} test images ({found['images']}): accuracy {found['accuracy']:.4f}")
    if pairs := metrics["most_confused"]:
        worst = [f"{one['true']} for {one['predicted']} ({one['count']})" for one in pairs[:3]]
        print(f"most confused: {', '.join(worst)}; calibration error {errors['ece']:.3f}")
    print(analysis.fit(run.history_columns()))
    if recorder.tracker is not None:
        recorder.tracker.finish(metrics, dataset.class_names)
    if recorder.message:
        print(recorder.message, file=sys.stderr)
    if recorder.status == "interrupted":
        print(f"go on with: --resume {run.directory}", file=sys.stderr)
    print(run.directory, flush=True)
    return recorder.exit_code
