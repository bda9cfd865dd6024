"""Train, evaluate and record one experiment with Keras."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import keras
import numpy as np

from experiment import randomness
from experiment.config import Experiment
from experiment.data import features
from experiment.data.dataset import Dataset
from experiment.errors import RunError
from experiment.runs.record import Run, brief
from experiment.system import devices
from experiment.system.environment import environment
from experiment.system.files import replacing
from experiment.tracking.tensorboard import Layers
from experiment.training import lifecycle
from experiment.training.lifecycle import Session
from keras_impl.augment import as_inputs, augment, compiled
from keras_impl.callbacks import RESUME, build_callbacks
from keras_impl.classifier import Classifier, build_classifier
from keras_impl.data import build_data
from keras_impl.distribution import distribute
from keras_impl.model import count_parameters
from keras_impl.precision import check, numerics
from keras_impl.trace.recorder import Recording
from keras_impl.weights import warm_start


def fit(experiment: Experiment, resume: Path | None = None, checkpoint: str = "last") -> int:
    """Train as configured and write the run record; returns the command's exit code.

    resume: the directory of a run to go on with, from its last checkpoint or its best. Raises DataError and
    RunError.
    """
    session = lifecycle.begin(experiment, "keras", resume, checkpoint)
    with lifecycle.checking(session):
        distribute(session)
        check(experiment)
    with numerics(experiment):
        return _train(session)


def _train(session: Session) -> int:
    experiment, dataset, run = session.experiment, session.dataset, session.run
    on_features = features.usable(experiment)
    classifier = build_classifier(experiment, len(dataset.class_names), on_features, session.pretrained)
    parameters = count_parameters(classifier.model)
    # The weights first: features are made of them.
    if session.resumed:
        restore(session, classifier)
    warm_start(session, classifier.model)
    lifecycle.draw_samples(session, augmented_samples(session))
    if on_features:
        dataset = base_features(classifier, dataset, experiment)
    data = build_data(experiment, dataset)

    weights = session.class_weights
    restored = len(session.rows)
    with lifecycle.recorder(session, describe(session)) as recorder:
        if not lifecycle.is_trained(session):
            classifier.trained.fit(
                data.train,
                validation_data=data.validation,
                epochs=experiment.training.epochs,
                initial_epoch=len(session.rows),
                class_weight=None if weights is None else dict(enumerate(weights)),
                callbacks=build_callbacks(experiment, recorder, classifier, data.train),
                shuffle=False,  # the batches come in the order that both sides share
                verbose=0,
            )
    if not recorder.rows:
        return lifecycle.discard(session, recorder)

    if session.checkpoint == "best" and len(recorder.rows) == restored:
        adopt_best(run)
    keras.distribution.set_distribution(None)  # test images come in batches of any size
    name = "best.keras" if experiment.training.use_best else "last.keras"
    _load(classifier.model, run.checkpoints / name)
    scores = classifier.trained.evaluate(data.test, verbose=0, return_dict=True)
    probabilities = np.asarray(classifier.trained.predict(data.test, verbose=0))
    return lifecycle.finish(
        session, recorder, probabilities, float(scores["loss"]), parameters, layers(classifier)
    )


def layers(classifier: Classifier) -> Layers:
    """Name, kind and inputs of every layer, in the order in which they run."""
    model = classifier.model
    with Recording(model) as recording:
        model(keras.ops.zeros((1, *model.input_shape[1:])))
    return [(seen.name, seen.kind, seen.inputs) for seen in recording.seen]


def augmented_samples(session: Session) -> np.ndarray | None:
    """`lifecycle.samples` augmented as in the first epoch: float (25, S, S, 3), or None."""
    experiment = session.experiment
    if experiment.augment.kind == "none":
        return None
    images, _ = lifecycle.samples(session.dataset, experiment)
    generator = randomness.generator(experiment.seed, "augment", 0, 0)
    size = experiment.data.image_size
    inputs = as_inputs(randomness.augmentation(generator, len(images), experiment.augment, size), size)
    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
    pixels = keras.ops.convert_to_tensor(images.astype(keras.config.floatx()))
    return keras.ops.convert_to_numpy(compiled(augment)(pixels, tensors))


def base_features(classifier: Classifier, dataset: Dataset, experiment: Experiment) -> Dataset:
    """The data set with every image replaced by what the frozen base makes of it: (N, features)."""
    base = classifier.model.get_layer("base")

    def compute(images: np.ndarray) -> np.ndarray:
        return np.asarray(base.predict_on_batch(images.astype(keras.config.floatx())))

    return features.replace_images(dataset, base.get_weights(), compute, experiment, "keras")


def describe(session: Session) -> dict[str, object]:
    """Where the run happens, for environment.json."""
    backend = keras.backend.backend()
    return environment(
        "keras",
        f"cuda:{backend}" if devices.wanted(session.experiment.gpus) else "cpu",
        os.cpu_count() or 1,
        session.experiment.seed,
        session.data_facts,
        backend=backend,
    )


def restore(session: Session, classifier: Classifier) -> None:
    """Bring a classifier and its optimizer to where the checkpoint of a resumed run left them."""
    assert session.source is not None
    folder = Run(session.source).checkpoints
    steps = len(build_data(session.experiment, session.dataset).train)

    def load_checkpoint(checkpoint: str) -> int:
        if session.experiment.training.use_best:
            _load(classifier.model, folder / "best.keras")  # which the end will want
        _load(classifier.model, folder / f"{checkpoint}.keras")  # the base, where the head alone is trained
        path = folder / RESUME[checkpoint]
        _load(classifier.trained, path)
        iterations = int(keras.ops.convert_to_numpy(classifier.trained.optimizer.iterations))
        if not iterations or iterations % steps:
            raise RunError(f"{path}: of step {iterations}, which ends no epoch of {steps} steps")
        return iterations // steps

    lifecycle.restore(session, load_checkpoint, folder / RESUME["last"])


def _load(model: keras.Model, path: Path) -> None:
    """Give a model the weights of a file; raises RunError where it is damaged or of another model."""
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error


def adopt_best(run: Run) -> None:
    """Make the best epoch's checkpoint the last one's, where no later epoch was trained."""
    for name, other in (("best.keras", "last.keras"), (RESUME["best"], RESUME["last"])):
        with replacing(run.checkpoints / other) as path:
            shutil.copyfile(run.checkpoints / name, path)
