"""Weights and checkpoints as plain arrays, in Keras's layout and under the layers' names."""

from __future__ import annotations

import keras
import numpy as np

from experiment.config import Experiment
from experiment.data import features
from experiment.data.dataset import Dataset
from experiment.deploy.prediction import TrainedRun
from experiment.errors import RunError
from experiment.protocols.checkpoint import Arrays
from experiment.runs.record import brief
from experiment.system.files import replacing
from experiment.training.lifecycle import Session
from experiment.training.recorder import Recorder
from keras_impl.callbacks import build_callbacks, learning_rate
from keras_impl.classifier import Classifier, build_classifier
from keras_impl.data import build_data
from keras_impl.model import count_parameters
from keras_impl.optimizers import slots
from keras_impl.weights import assign, by_name, load, to_array, weights


def read_checkpoints(trained: TrainedRun) -> dict[str, Arrays]:
    """The run's best and last checkpoint, as `experiment.protocols.checkpoint` has them; RunError for a
    damaged file."""
    classifier = _classifier(trained.experiment, len(trained.class_names))
    _load_weights(classifier.model, trained, "best.keras")
    best = weights(classifier.model)
    _load_weights(classifier.model, trained, "last.keras")
    _load_weights(classifier.trained, trained, "resume.keras")
    last = weights(classifier.model)
    return {
        "best": {f"weights/{name}": array for name, array in best.items()},
        "last": {f"weights/{name}": array for name, array in last.items()}
        | {name: to_array(variable) for name, variable in _progress(classifier).items()},
    }


def write_checkpoints(session: Session, recorder: Recorder, checkpoints: dict[str, Arrays]) -> None:
    """Write the files that `fit` would have left, from what `read_checkpoints` of either side found."""
    classifier = _classifier(session.experiment, len(session.dataset.class_names))
    for name in ("best", "last"):
        found = checkpoints[name].items()
        load(classifier.model, {k.removeprefix("weights/"): v for k, v in found if k.startswith("weights/")})
        _save(classifier.model, session, f"{name}.keras")
    for name, variable in _progress(classifier).items():
        assign(variable, checkpoints["last"][name], name)
    # The learning rate is made from the record again: Keras keeps it in the precision of the run, and the
    # other side does not.
    batches = build_data(session.experiment, session.dataset).train
    classifier.trained.optimizer.learning_rate = learning_rate(session.experiment, len(session.rows) - 1)
    callbacks = build_callbacks(session.experiment, recorder, classifier, batches)
    keras.callbacks.CallbackList(callbacks, model=classifier.trained).on_train_begin()
    _save(classifier.trained, session, "resume.keras")


def evaluate(trained: TrainedRun, dataset: Dataset) -> tuple[np.ndarray, float, dict[str, int]]:
    """Probabilities (N, classes) on the test split, the loss on it, and the numbers of parameters."""
    classifier = _classifier(trained.experiment, len(trained.class_names), on_features=False)
    name = "best.keras" if trained.experiment.training.use_best else "last.keras"
    _load_weights(classifier.model, trained, name)
    test = build_data(trained.experiment, dataset).test
    scores = classifier.trained.evaluate(test, verbose="0", return_dict=True)
    probabilities = np.asarray(classifier.trained.predict(test, verbose="0"))
    return probabilities, float(scores["loss"]), count_parameters(classifier.model)


def _classifier(experiment: Experiment, classes: int, on_features: bool | None = None) -> Classifier:
    on_features = features.usable(experiment) if on_features is None else on_features
    return build_classifier(experiment, classes, on_features, pretrained=False)


def _progress(classifier: Classifier) -> dict[str, keras.Variable]:
    """What the optimizer keeps, by the names of converted checkpoints."""
    optimizer = classifier.trained.optimizer
    names = {id(variable): name for name, variable in by_name(classifier.model).items()}
    progress = {"iterations": optimizer.iterations, "learning_rate": optimizer.learning_rate}
    for slot, variables in slots(optimizer).items():
        for weight, variable in zip(classifier.trained.trainable_variables, variables, strict=True):
            progress[f"{slot}/{names[id(weight)]}"] = variable
    return progress


def _load_weights(model: keras.Model, trained: TrainedRun, name: str) -> None:
    path = trained.run.checkpoints / name
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error


def _save(model: keras.Model, session: Session, name: str) -> None:
    with replacing(session.run.checkpoints / name) as path:
        model.save(path)
