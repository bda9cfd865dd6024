"""MLflow, for those who ask for it (--tracking mlflow): the same keys from both sides.

It only ever gets what the run record holds already: where its server fails, training goes on.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiment import ranks
from experiment.config import Experiment
from experiment.run import Run, RunError

KEYS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")
RESULTS = ("test_accuracy", "test_loss", "macro_f1")
CANDIDATE = "candidate"  # the alias of the newest version in the registry
ROOT = Path(__file__).parents[1]
# What the packages of experiment/ and one side need to predict.
NEEDED = (
    "h5py",
    "jsonargparse",
    "numpy",
    "pillow",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "tensorboard",
    "tqdm",
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
                found[f"{prefix}{key}"] = value

    visit(experiment.model_dump(mode="json", exclude={"run", "mlflow", "tracking"}), "")
    return found


def start(run: Run, experiment: Experiment) -> Tracker | None:
    """A tracker of a run that is about to be trained or resumed, or None where none is wanted."""
    wanted = experiment.tracking == "mlflow" and ranks.rank() == 0
    return Tracker(run, experiment) if wanted else None


def check(experiment: Experiment) -> None:
    """Raise RunError where MLflow is wanted and its store cannot be opened."""
    if experiment.tracking != "mlflow":
        return
    # A server that is not there would be asked for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        client(experiment).search_experiments(max_results=1)
    except Exception as error:  # stores and servers raise what they like
        said = " ".join(str(error).split())[:200]
        raise RunError(f"mlflow.uri {experiment.mlflow.uri}: cannot be used ({said})") from error


def client(experiment: Experiment) -> Any:
    """MLflow's client for the configured store, without its remarks."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=experiment.mlflow.uri)


class Tracker:
    """One run in MLflow; mlflow.json in the run record says which, so that a resumed run goes on in it."""

    def __init__(self, run: Run, experiment: Experiment) -> None:
        self.run, self.experiment = run, experiment
        self.facts = run.read_json("environment.json")
        self.client = client(experiment)
        if (run.directory / "mlflow.json").is_file():
            self.id = run.read_json("mlflow.json")["run_id"]
            self.client.update_run(self.id, status="RUNNING")
            return
        name = experiment.mlflow.experiment
        found = self.client.get_experiment_by_name(name)
        place = found.experiment_id if found else self._create(name)
        tags = {key: str(self.facts.get(key)) for key in ("framework", "device", "git_revision")}
        tags |= {"data": self.facts["data"]["name"], "data_sha256": self.facts["data"]["sha256"]}
        self.id = self.client.create_run(place, tags=tags, run_name=run.directory.name).info.run_id
        run.write_json("mlflow.json", {"uri": experiment.mlflow.uri, "run_id": self.id})
        for key, value in settings(experiment).items():
            self.client.log_param(self.id, key, value)

    def epoch(self, row: dict[str, float]) -> None:
        """Log an epoch's row of the history."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(key, row[key], now, int(row["epoch"])) for key in KEYS]
        self._try(lambda: self.client.log_batch(self.id, metrics=values))

    def end(self, status: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        self._try(lambda: self.client.set_terminated(self.id, status))

    def finish(self, metrics: dict[str, Any], class_names: Sequence[str]) -> None:
        """Log the results, the record's files and the model, and register it where that is asked for."""
        self._try(lambda: self._finish(metrics, class_names))

    def _finish(self, metrics: dict[str, Any], class_names: Sequence[str]) -> None:
        import mlflow

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
        status = {"completed": "FINISHED", "interrupted": "KILLED"}.get(metrics["status"], "FAILED")
        self.client.set_terminated(self.id, status)

    def _create(self, name: str) -> str:
        store, _, path = self.experiment.mlflow.uri.partition(":///")
        # Beside a database file, not where the command happens to be started.
        place = Path(path).resolve().parent / "mlruns" if store == "sqlite" else None
        return self.client.create_experiment(name, place.as_uri() if place else None)

    def _registered(self, name: str, model: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.client.create_model_version(name, model.model_uri, self.id, model_id=model.model_id)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            print(f"WARNING: MLflow: {said}; the run record is whole without it", file=sys.stderr)


def log_model(run: Run, framework: str, classes: int, experiment: Experiment) -> Any:
    """Log a finished run's model to the active MLflow run: uint8 (N, S, S, 3) -> probabilities (N, classes).

    What is logged is the checkpoint and this project's code, nothing pickled. Returns MLflow's ModelInfo.
    """
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from experiment.lifecycle import use_best

    size = experiment.data.image_size
    floats = np.dtype("float64" if experiment.training.precision == "float64" else "float32")
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3), "images")]),
        Schema([TensorSpec(floats, (-1, classes), "probabilities")]),
    )
    suffix = {"keras": "keras", "lightning": "ckpt"}[framework]
    checkpoint = f"checkpoints/{'best' if use_best(experiment) else 'last'}.{suffix}"
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "run"
        (kept / "checkpoints").mkdir(parents=True)
        for name in ("config.yaml", "environment.json", "metrics.json", checkpoint):
            shutil.copy2(run.directory / name, kept / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an example of the input would be welcome
            return mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("registered.py")),
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
