"""MLflow, for those who ask for it (--tracking mlflow): the same keys from both sides.

It only ever gets what the run record holds already: where its store fails, training goes on, and what it
missed is logged once it answers again.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiment.config import Experiment
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.system import distributed
from experiment.system.names import brief, printable

KEYS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")
RESULTS = ("test_accuracy", "test_loss", "macro_f1")
RETRY = 60.0  # seconds for which a store that failed is left alone
LONGEST_NAME, LONGEST_VALUE, BATCH = 250, 6000, 100  # what MLflow takes of parameters
STATUS = {"completed": "FINISHED", "interrupted": "KILLED"}  # by a run's status; others are FAILED
CANDIDATE = "candidate"  # the alias of the newest version in the registry
ROOT = Path(__file__).parents[2]
# What the packages of experiment/ and one side need to predict.
NEEDED = (
    "h5py",
    "jsonargparse",
    "numpy",
    "pillow",
    "pydantic",
    "pyyaml",
    "rich",
    "scikit-learn",
    "tensorboard",
)
FRAMEWORKS = {
    "keras": ("keras", "tensorflow-cpu", "tensorflow", "jax"),
    "lightning": ("lightning", "torch", "torchmetrics", "torchvision"),
}


def settings(experiment: Experiment) -> dict[str, Any]:
    """The settings of a run by dotted key, but for where it goes and how it is tracked."""
    found: dict[str, Any] = {}

    def visit(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                visit(value, f"{prefix}{key}.")
            else:
                found[f"{prefix}{key}"] = printable(value) if isinstance(value, str) else value

    visit(experiment.model_dump(mode="json", exclude={"run", "mlflow", "tracking"}), "")
    return found


def start(run: Run, experiment: Experiment, rows: Sequence[dict[str, float]]) -> Tracker | None:
    """A tracker of a run that is about to be trained or resumed, or None where none is wanted.

    rows: of the history, as far as it goes.
    """
    wanted = experiment.tracking == "mlflow" and distributed.rank() == 0
    return Tracker(run, experiment, rows) if wanted else None


class StoreError(RunError):
    """MLflow's store does not answer, or refuses; the message says what it said."""


@contextmanager
def asking(experiment: Experiment) -> Iterator[None]:
    """Raises StoreError, in a line, for whatever stores and servers raise inside."""
    try:
        yield
    except Exception as error:
        raise StoreError(f"mlflow.uri {experiment.mlflow.uri}: {brief(error)}") from error


def check(experiment: Experiment) -> None:
    """Raise StoreError where MLflow is wanted and its store cannot be opened."""
    if experiment.tracking != "mlflow":
        return
    try:
        client(experiment).search_experiments(max_results=1)
    except Exception as error:  # stores and servers raise what they like
        raise StoreError(f"mlflow.uri {experiment.mlflow.uri}: cannot be used ({brief(error)})") from error


def client(experiment: Experiment) -> Any:
    """MLflow's client for the configured store, without its remarks."""
    # A server that is not there would be asked for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")  # its errors are whole tracebacks
    for noisy in ("alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    if not experiment.mlflow.uri.startswith(("sqlite:", "http")):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1  # ten, each twice as long after the one before, are 100 s
    return MlflowClient(tracking_uri=experiment.mlflow.uri)


def recorded(run: Run) -> dict[str, Any]:
    """A run's mlflow.json: uri, run_id and, once registered, name and version; empty where it has none."""
    try:
        return run.read_json("mlflow.json")
    except RunError:  # there is none, or half of one
        return {}


def close(experiment: Experiment, left: dict[str, Any]) -> None:
    """Close the run in MLflow of a record that was replaced, where its process died before it could.

    left: what `recorded` gave for it. Raises nothing: where its store does not answer, the run stays open.
    """
    if not left:
        return
    with suppress(Exception):  # stores and servers raise what they like
        mlflow = experiment.mlflow.model_copy(update={"uri": left["uri"]})
        store = client(experiment.model_copy(update={"mlflow": mlflow}))
        if store.get_run(left["run_id"]).info.status == "RUNNING":
            store.set_terminated(left["run_id"], "KILLED")


class Tracker:
    """One run in MLflow; mlflow.json in the run record says which, so that a resumed run goes on in it.

    Nothing here raises: what fails is said once, and tried again after `RETRY` seconds and at the end.
    """

    client: Any = None
    id: str | None = None  # of the run in MLflow, once it has one

    def __init__(self, run: Run, experiment: Experiment, rows: Sequence[dict[str, float]] = ()) -> None:
        self.run, self.experiment = run, experiment
        self.facts = run.read_json("environment.json")
        self._rows, self._missing = list(rows), []  # all epochs; those that MLflow has yet to get
        self._failed, self._asleep = False, 0.0
        atexit.register(self._abandoned)
        self._try(self._begin)

    def epoch(self, row: dict[str, float]) -> None:
        """Log an epoch's row of the history."""
        self._rows.append(row)
        self._missing.append(row)
        if time.monotonic() >= self._asleep:
            self._try(self._catch_up)

    def end(self, status: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        if self.id is not None and self._try(lambda: self.client.set_terminated(self.id, status)):
            atexit.unregister(self._abandoned)

    def finish(self, metrics: dict[str, Any], class_names: Sequence[str]) -> None:
        """Log the results, the record's files and the model, and register it where that is asked for."""
        self._try(lambda: self._finish(metrics, class_names))
        self.end(STATUS.get(metrics["status"], "FAILED"))

    def _begin(self) -> None:
        """Go on in the run that the record names, or make one."""
        self.client = client(self.experiment)
        if (before := recorded(self.run).get("run_id")) is not None:
            try:
                self.client.update_run(before, status="RUNNING")
            except Exception as error:
                if getattr(error, "error_code", "") not in (
                    "RESOURCE_DOES_NOT_EXIST",
                    "INVALID_PARAMETER_VALUE",
                ):
                    raise  # the store is at fault: later, perhaps
                self._warn(f"run {before} is gone; what is logged from here on goes to a new run")
            else:
                self.id = before
                return
        tags = {key: str(self.facts.get(key)) for key in ("framework", "device", "git_revision")}
        tags |= {"data": self.facts["data"]["name"], "data_sha256": self.facts["data"]["sha256"]}
        made = self.client.create_run(
            self._experiment(), tags=tags, run_name=printable(self.run.directory.name)
        )
        self.id, self._missing = made.info.run_id, list(self._rows)
        self.run.write_json("mlflow.json", {"uri": self.experiment.mlflow.uri, "run_id": self.id})
        self._log_settings()

    def _catch_up(self) -> None:
        from mlflow.entities import Metric

        if self.id is None:
            self._begin()
        now = int(time.time() * 1000)
        while self._missing:
            rows = self._missing[:BATCH]
            values = [Metric(key, row[key], now, int(row["epoch"])) for row in rows for key in KEYS]
            self.client.log_batch(self.id, metrics=values)
            del self._missing[: len(rows)]

    def _finish(self, metrics: dict[str, Any], class_names: Sequence[str]) -> None:
        import mlflow

        self._catch_up()
        for key in RESULTS:
            self.client.log_metric(self.id, key, metrics[key])
        for path in sorted(self.run.directory.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                self.client.log_artifact(self.id, str(path))
        mlflow.set_tracking_uri(self.experiment.mlflow.uri)
        with mlflow.start_run(run_id=self.id):
            model = log_model(self.run, self.facts["framework"], len(class_names), self.experiment)
        if (name := self.experiment.mlflow.register_as) is not None:
            made = self._registered(name, model)
            self.client.set_registered_model_alias(name, CANDIDATE, made.version)
            self.run.write_json(
                "mlflow.json",
                {"uri": self.experiment.mlflow.uri, "run_id": self.id, "name": name, "version": made.version},
            )
            print(f"MLflow: {name} version {made.version} is its {CANDIDATE}")

    def _experiment(self) -> str:
        """The id of the experiment that runs are filed under, made where there is none.

        MLflow keeps the name of a deleted one. What was thrown away is not brought back: the next free name
        (NAME-2) is taken, and said.
        """
        wanted = self.experiment.mlflow.experiment
        for number in range(1, 100):
            name = wanted if number == 1 else f"{wanted}-{number}"
            known = self.client.get_experiment_by_name(name)
            if known is None:
                try:
                    place = self._create(name)
                except Exception:  # another run may just have made it
                    if (known := self.client.get_experiment_by_name(name)) is None:
                        raise
                    place = known.experiment_id
            elif known.lifecycle_stage == "active":
                place = known.experiment_id
            else:
                continue
            if number > 1:
                self._warn(f"the experiment {wanted} was deleted; the run is filed under {name}")
            return place
        raise LookupError(f"the experiment {wanted} was deleted; choose another --mlflow.experiment")

    def _create(self, name: str) -> str:
        store, _, path = self.experiment.mlflow.uri.partition(":///")
        # Beside a database file, not where the command happens to be started.
        place = Path(path).resolve().parent / "mlruns" if store == "sqlite" else None
        return self.client.create_experiment(name, place.as_uri() if place else None)

    def _log_settings(self) -> None:
        from mlflow.entities import Param

        pairs = [Param(key, value) for key, value in parameters(settings(self.experiment)).items()]
        for start in range(0, len(pairs), BATCH):
            self.client.log_batch(self.id, params=pairs[start : start + BATCH])

    def _registered(self, name: str, model: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.client.create_model_version(name, model.model_uri, self.id, model_id=model.model_id)

    def _try(self, action: Callable[[], Any]) -> bool:
        """Act; returns whether it went well."""
        try:
            action()
        except Exception as error:  # stores and servers raise what they like
            if not self._failed:
                self._warn(f"{brief(error)}; the run record is whole without it")
            self._failed, self._asleep = True, time.monotonic() + RETRY
            return False
        return True

    def _warn(self, message: str) -> None:
        print(f"WARNING: MLflow: {message}", file=sys.stderr)

    def _abandoned(self) -> None:
        """Close a run that nobody closed: its process ends by an error after the training."""
        if time.monotonic() >= self._asleep:
            self.end("FAILED")


def parameters(values: dict[str, Any]) -> dict[str, str]:
    """Settings as MLflow takes them: other characters in a key become _, long keys and values are cut."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = plain = re.sub(r"[^\w.\- :]", "_", key)[: LONGEST_NAME - 8]
        number = 2
        while name in found:  # two keys have become one
            name, number = f"{plain}_{number}", number + 1
        text = str(value)
        found[name] = text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
    return found


def log_model(run: Run, framework: str, classes: int, experiment: Experiment) -> Any:
    """Log a finished run's model to the active MLflow run: uint8 (N, S, S, 3) -> probabilities (N, classes).

    What is logged is the checkpoint and this project's code, nothing pickled. Returns MLflow's ModelInfo.
    """
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    size = experiment.data.image_size
    floats = np.dtype("float64" if experiment.training.precision == "float64" else "float32")
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3), "images")]),
        Schema([TensorSpec(floats, (-1, classes), "probabilities")]),
    )
    suffix = {"keras": "keras", "lightning": "ckpt"}[framework]
    checkpoint = f"checkpoints/{'best' if experiment.training.use_best else 'last'}.{suffix}"
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "run"
        (kept / "checkpoints").mkdir(parents=True)
        for name in ("config.yaml", "environment.json", "metrics.json", checkpoint):
            shutil.copy2(run.directory / name, kept / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an example of the input would be welcome
            return mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("mlflow_model.py")),
                artifacts={"run": str(kept)},
                code_paths=[str(ROOT / "experiment"), str(ROOT / f"{framework}_impl")],
                signature=signature,
                pip_requirements=requirements(framework),
            )


def requirements(framework: str) -> list[str]:
    """The installed versions of what a run's model needs."""
    found = []
    for name in (*NEEDED, *FRAMEWORKS[framework]):
        try:
            found.append(f"{name}=={version(name)}")
        except ModuleNotFoundError:  # PackageNotFoundError: one of TensorFlow's two names
            continue
    return found
