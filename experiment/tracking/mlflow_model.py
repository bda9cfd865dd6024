"""A run as MLflow loads it: this file is logged with the model, as its code."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from experiment.deploy.prediction import TrainedRun, framework_of, in_batches
from experiment.runs.record import Run


class RegisteredRun(PythonModel):
    """Classifies images with the run that was logged as the artifact `run`."""

    def load_context(self, context: Any) -> None:
        directory = Path(context.artifacts["run"])
        framework = framework_of(Run(directory))
        side = import_module(f"{framework}_impl.predict")
        trained = TrainedRun.open(directory, framework)
        self.class_names, self.classify = trained.class_names, side.predictor(trained)

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Classify uint8 (N, S, S, 3) images, or {"images": them}: probabilities (N, classes)."""
        images = model_input["images"] if isinstance(model_input, dict) else model_input
        return in_batches(self.classify, np.asarray(images, np.uint8))


set_model(RegisteredRun())
