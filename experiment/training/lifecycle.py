"""The life of a run before and after training, the same on both sides, as are their run records."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli, randomness
from experiment.cli import read_config
from experiment.config import Experiment, Training
from experiment.data import audit
from experiment.data.dataset import Dataset
from experiment.deploy.prediction import TrainedRun
from experiment.deploy.run_data import load_all
from experiment.errors import DataError, RunError
from experiment.evaluation import error_analysis, figures
from experiment.evaluation import metrics as evaluation
from experiment.runs.record import Run, changes
from experiment.system import distributed
from experiment.tracking import mlflow, page, tensorboard
from experiment.tracking.tensorboard import Layers
from experiment.training import warm_start
from experiment.training.recorder import Recorder


@dataclass
class Session:
    """A run about to be trained: its data, its record, and the epochs that it already has."""

    experiment: Experiment
    dataset: Dataset
    run: Run
    class_weights: list[float] | None
    rows: list[dict[str, float]] = field(default_factory=list)
    resumed: bool = False
    warm: TrainedRun | None = None  # whose weights training starts from
    tests: dict[str, slice] = field(default_factory=dict)  # parts of the test split, after a warm start
    source: Path | None = None  # the run that is resumed
    checkpoint: str = "last"  # or best: which it goes on from

    @property
    def pretrained(self) -> bool:
        """True where a base starts from published weights: others are loaded otherwise, and none fetched."""
        return self.warm is None and not self.resumed

    def keep_epochs(self, count: int) -> None:
        """Forget recorded epochs that the checkpoint does not hold: they are trained again."""
        del self.rows[count:]

    @property
    def data_facts(self) -> dict[str, object]:
        """The data set as environment.json names it."""
        return data_facts(self.dataset, bool(self.tests))


def data_facts(dataset: Dataset, updated: bool) -> dict[str, object]:
    """A data set as environment.json names it; updated: after a warm start, which adds to older images."""
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "note": dataset.note,
        "class_names": list(dataset.class_names),
        "images": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "training_images": dict(zip(dataset.class_names, counts(dataset), strict=True)),
        "folders": dataset.folders,
        "identical_images": audit.identical(dataset),
        "remarks": audit.remarks(dataset, updated),
    }


def class_weights(experiment: Experiment, dataset: Dataset) -> list[float] | None:
    """The weight of each class in the training loss, or None.

    `balanced` is N / (classes * images of the class), as scikit-learn's compute_class_weight has it.
    Raises DataError where the number of given weights is not the number of classes.
    """
    wanted, classes = experiment.training.class_weights, len(dataset.class_names)
    if wanted == "balanced":
        images = np.maximum(counts(dataset), 1)
        return (len(dataset.train) / (classes * images)).tolist()
    if isinstance(wanted, list) and len(wanted) != classes:
        raise DataError(f"training.class_weights has {len(wanted)} weights for {classes} classes")
    return wanted


def counts(dataset: Dataset) -> list[int]:
    """The number of training images of each class."""
    return np.bincount(dataset.train.labels, minlength=len(dataset.class_names)).tolist()


def begin(experiment: Experiment, framework: str, resume: Path | None, checkpoint: str = "last") -> Session:
    """Load the data and make the run record, or read that of the run to resume, without changing it.

    checkpoint: last or best, from which a resumed run goes on. Raises DataError for the data; RunError where
    the run cannot be resumed or its place is taken.
    """
    if resume is not None and distributed.rank() == 0:
        Run(resume).claim()
    rows = [] if resume is None else _read(experiment, framework, Run(resume))
    # A run's own checkpoint holds what a warm start gave it.
    warm = warm_start.opened(experiment, framework) if resume is None else None
    dataset, tests = load_all(experiment, None if resume is None else Run(resume))
    experiment = with_recipe(experiment, dataset)
    weights = class_weights(experiment, dataset)
    print(
        f"data: {dataset.name}, {len(dataset.class_names)} classes; {len(dataset.train)} training, "
        f"{len(dataset.validation)} validation, {len(dataset.test)} test images",
        flush=True,
    )
    if distributed.rank() == 0:
        for remark in audit.remarks(dataset, bool(tests)):
            print(f"note: {remark}", flush=True)
    if resume is not None:
        _check_data(Run(resume), data_facts(dataset, bool(tests)))
    if distributed.rank() > 0:  # the first process alone keeps the record: this one's goes nowhere
        run = Run(Path(tempfile.mkdtemp(prefix="rank")))
        run.checkpoints.mkdir()
    elif resume is not None:
        run = Run(resume)
    else:
        replaced = {} if experiment.run.dir is None else mlflow.recorded(Run(experiment.run.dir))
        try:
            run = Run.create(experiment, framework, dataset.name)
        except OSError as error:
            raise RunError(str(error)) from error
        mlflow.close(experiment, replaced)
        warm_start.record(run, dataset)
    return Session(
        experiment, dataset, run, weights, rows, resume is not None, warm, tests, resume, checkpoint
    )


def with_recipe(experiment: Experiment, dataset: Dataset) -> Experiment:
    """The experiment, or the recipe of configs/digits.yaml where digits stand in for CIFAR-10.

    A first run without arguments and without a network is then of few images: at the defaults BatchNorm's
    averages would not have settled when it ends, and a mirrored 2 is no digit. What its user set stays.
    """
    default = Experiment()
    stands_in = experiment.data.name == "auto" and dataset.name == "digits"
    if not stands_in or (experiment.training, experiment.augment) != (default.training, default.augment):
        return experiment
    print("training: batches of 32, a cosine schedule and no mirrored digits (as configs/digits.yaml)")
    training, augment = default.training, default.augment
    schedule = training.schedule.model_copy(update={"kind": "cosine"})
    return experiment.model_copy(
        update={
            "training": training.model_copy(update={"batch_size": 32, "schedule": schedule}),
            "augment": augment.model_copy(update={"horizontal_flip": False}),
        }
    )


def _read(experiment: Experiment, framework: str, run: Run) -> list[dict[str, float]]:
    """The epochs of a run that is to go on; raises RunError where it cannot, as this experiment."""
    rows = run.history()
    if distributed.rank() > 0:  # the first process, which may be ahead by now, has asked
        return rows
    if not rows or not (run.directory / "environment.json").is_file():
        raise RunError(f"{run.directory}: no epoch was finished, there is nothing to resume: start it anew")
    before = run.read_json("environment.json")
    if before["framework"] != framework:
        raise RunError(
            f"{run.directory} is a {before['framework']} run: resume it with {before['framework']}"
        )
    if changed := changes(before.get("experiment"), experiment, cli.RESUMABLE):
        raise RunError(f"{run.directory} cannot go on: {changed}\nput it back, or start a new run")
    training, count = experiment.training, len(rows)
    planned = _planned(run, before)
    try:
        ended = run.finished and run.read_json("metrics.json")["status"] == "completed"
    except RunError as error:
        raise RunError(f"{error}\nremove it: --resume makes the results anew") from error
    if ended and training.early_stopping.ended(*_monitored(training, rows)):
        raise RunError(
            f"{run.directory} was ended by early stopping after {count} epochs: more would not be trained\n"
            f"start a new run, with a larger training.early_stopping.patience or --warm-start {run.directory}"
        )
    if training.epochs <= (planned if ended else count - 1):
        raise RunError(
            f"{run.directory} ended after {count} epochs: "
            "give more with --training.epochs, or start a new run"
        )
    return rows


def _planned(run: Run, environment: dict[str, Any]) -> int:
    if "experiment" in environment:
        return environment["experiment"]["training"]["epochs"]
    return read_config(run.directory / "config.yaml").training.epochs  # of a record from before that was kept


def _monitored(training: Training, rows: list[dict[str, float]]) -> tuple[list[float], bool]:
    return [row[training.monitor] for row in rows], training.monitor == "val_loss"


def _check_data(run: Run, facts: dict[str, Any]) -> None:
    before = run.read_json("environment.json")["data"]
    if before["sha256"] != facts["sha256"]:
        raise RunError(f"{run.directory} was trained on other data (sha256 differs): it cannot be resumed")
    for key in ("images", "training_images"):  # the sum is of the whole set, of which not all may be used
        if before.get(key, facts[key]) != facts[key]:
            raise RunError(
                f"{run.directory} was trained on other images of the same data "
                f"({_counted(before['images'])}; now {_counted(facts['images'])}): it cannot be resumed"
            )


def _counted(images: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in images.items())


def restore(session: Session, load: Callable[[str], int], last: Path) -> None:
    """Load the checkpoint that a resumed session goes on from, and forget the epochs after it.

    load: loads `last` or `best` and returns the epoch after which it was written. last: the file of the last
    checkpoint. Changes nothing in the record; raises RunError, which offers the best epoch where that can be
    loaded and the last cannot.
    """

    def loaded(checkpoint: str) -> int:
        if (epoch := load(checkpoint)) > len(session.rows):
            raise RunError(
                f"{session.source}: its {checkpoint} checkpoint is of epoch {epoch}, history.csv ends with "
                f"epoch {len(session.rows)}"
            )
        return epoch

    if session.checkpoint == "last" and not last.exists():
        with suppress(RunError):
            if loaded("best") == len(session.rows):  # killed between its first two checkpoints
                session.checkpoint = "best"
    try:
        session.keep_epochs(loaded(session.checkpoint))
    except RunError as error:
        offer = ""
        if session.checkpoint != "best":
            with suppress(RunError):
                offer = (
                    f"go on from its best epoch, {loaded('best')}, with --resume {session.source} --from best"
                )
        raise RunError(f"{error}: the run cannot be resumed\n{offer}".rstrip()) from error
    if distributed.rank() == 0:
        _warn_of_cosine(session)


def _warn_of_cosine(session: Session) -> None:
    """Say how the learning rate jumps where a cosine schedule goes on over another number of epochs."""
    assert session.source is not None
    training, rows, run = session.experiment.training, session.rows, Run(session.source)
    planned, count = _planned(run, run.read_json("environment.json")), len(rows)
    if training.schedule.kind != "cosine" or training.epochs == planned or _is_over(training, rows):
        return
    rate = training.learning_rate * training.schedule.factor(count, training.epochs)
    print(
        f"WARNING: the cosine schedule was planned over {planned} epochs, now over {training.epochs}: "
        f"the learning rate was {rows[-1]['learning_rate']:.1e} in epoch {count}, will be {rate:.1e} in "
        f"epoch {count + 1}, and the run is not what {training.epochs} epochs from the start would give",
        file=sys.stderr,
    )


def _is_over(training: Training, rows: list[dict[str, float]]) -> bool:
    ended = training.early_stopping.ended(*_monitored(training, rows))
    return ended is not None or len(rows) >= training.epochs


def recorder(session: Session, environment: dict[str, Any]) -> Recorder:
    """The recorder of a session, which writes config.yaml and environment.json.

    A new run's are written at once; those of one that goes on when its first epoch is finished, and the
    results that it had go then: until then its record stays as it was.
    """
    run, experiment = session.run, session.experiment
    environment = {**environment, "experiment": experiment.model_dump(mode="json")}

    def settle() -> None:
        for name in ("metrics.json", "predictions.npz"):
            (run.directory / name).unlink(missing_ok=True)
        if session.rows:
            run.write_history(session.rows)  # those that the checkpoint holds
        run.write_config(experiment)
        run.write_json("environment.json", environment)

    if not session.resumed:
        settle()
    return Recorder(run, experiment, len(session.dataset.train), session.rows, settle)


def is_trained(session: Session) -> bool:
    """True where no epoch is left: the last of them, or that at which early stopping acts, is recorded."""
    if not _is_over(session.experiment.training, session.rows):
        return False
    if distributed.rank() == 0:
        print(f"all {len(session.rows)} epochs were trained: the results alone are missing", flush=True)
    return True


def samples(dataset: Dataset, experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """The first 25 images that training sees, and their labels: uint8 (25, S, S, 3), int64 (25,)."""
    labels, sampling = dataset.train.labels, experiment.training.sampling
    return dataset.train.batch(randomness.training_order(experiment.seed, 0, labels, sampling)[:25])


def draw_samples(session: Session, augmented: np.ndarray | None) -> None:
    """Write samples.png: `samples`, and beside each the same image augmented (float, in 0..255)."""
    images, labels = samples(session.dataset, session.experiment)
    if augmented is not None:
        augmented = np.clip(np.rint(augmented), 0, 255).astype(np.uint8)
    path = session.run.directory / "samples.png"
    if not path.exists():  # a resumed run's are the same
        figures.samples(path, images, labels, augmented, session.dataset.class_names)


@contextmanager
def checking(session: Session) -> Iterator[None]:
    """Remove the run record where something inside raises RunError."""
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
    recorder.settle()
    metrics = {
        "status": recorder.status,
        "message": recorder.message,
        "parameters": parameters,
        "test_loss": test_loss,
        **results,
        "monitor": recorder.training.monitor,
        "best_epoch": int(best["epoch"]),
        "stopped_epoch": int(rows[-1]["epoch"]),
        "weights_of_epoch": int((best if session.experiment.training.use_best else rows[-1])["epoch"]),
        "train_seconds": sum(row["seconds"] for row in rows),
    }
    errors = error_analysis.calibration(labels, probabilities)
    matrix = evaluation.confusion(labels, probabilities)
    metrics |= {"calibration": errors, "most_confused": error_analysis.confused(matrix, dataset.class_names)}
    run.write_arrays("predictions.npz", y_true=labels, probabilities=probabilities)
    title = run.directory.name
    figures.curves(run.directory / "curves.png", run.history_columns(), int(best["epoch"]), title)
    figures.confusion(run.directory / "confusion.png", matrix, dataset.class_names, title)
    figures.calibration(run.directory / "calibration.png", errors, title)
    wrong = error_analysis.mistakes(labels, probabilities)
    if len(wrong):
        images, true = dataset.test.batch(wrong)
        path = run.directory / "mistakes.png"
        figures.mistakes(path, images, true, probabilities[wrong], dataset.class_names)
    if session.tests:
        hits = probabilities.argmax(1) == labels
        metrics["test_sets"] = {
            name: {"images": len(hits[part]), "accuracy": float(hits[part].mean())}
            for name, part in session.tests.items()
            if part.stop > part.start  # what was added may have no test images
        }
    tensorboard.write(run, session.experiment, metrics, layers)
    run.write_json("metrics.json", metrics)  # last: it says that the record is whole
    page.write(run, dataset.class_names)
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
    averages = session.experiment.model.name == "cnn"  # whose momentum is 0.99
    batches = -(-len(dataset.train) // session.experiment.training.batch_size)
    print(error_analysis.fit(run.history_columns(), batches * len(rows) if averages else None))
    if recorder.tracker is not None:
        recorder.tracker.finish(metrics, dataset.class_names)
    if recorder.message:
        print(recorder.message, file=sys.stderr)
    if recorder.status == "interrupted":
        print(f"go on with: --resume {run.directory}", file=sys.stderr)
    print(run.directory, flush=True)
    return recorder.exit_code
