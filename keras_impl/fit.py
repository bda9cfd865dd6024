"""Train, evaluate and record one experiment with Keras."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from experiment import devices, features, lifecycle, randomness
from experiment.config import Experiment
from experiment.datasets import Dataset
from experiment.lifecycle import Layers, Session
from experiment.progress import Recorder
from experiment.run import environment
from keras_impl.augment import affine, compiled, draw_matrices
from keras_impl.callbacks import build_callbacks
from keras_impl.classifier import Classifier
from keras_impl.data import DataModule
from keras_impl.distribution import distribute
from keras_impl.model import count_parameters
from keras_impl.recording import Recording
from keras_impl.weights import warm_start

PRECISIONS = {"float32": "float32", "tf32": "float32", "bfloat16": "mixed_bfloat16", "float64": "float64"}


def fit(experiment: Experiment, resume: Path | None = None) -> int:
    """Train as configured and write the run record; returns the command's exit code.

    resume: the directory of a run to go on with. Raises DataError and RunError.
    """
    session = lifecycle.begin(experiment, "keras", resume)
    with lifecycle.checking(session):
        distribute(session)
    with numerics(experiment):
        return _train(session)


def _train(session: Session) -> int:
    experiment, dataset, run = session.experiment, session.dataset, session.run
    on_features = features.usable(experiment)
    classifier = Classifier(experiment, len(dataset.class_names), on_features)
    parameters = count_parameters(classifier.model)
    warm_start(session, classifier.model)
    lifecycle.draw_samples(session, augmented_samples(session))
    if on_features:
        dataset = base_features(classifier, dataset)
    data = DataModule(dataset, experiment)
    run.write_json("environment.json", describe(session))

    if session.resumed:
        _restore(session, classifier, len(data.train))
    weights = session.class_weights
    with Recorder(run, experiment, len(dataset.train), session.rows) as recorder:
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

    keras.distribution.set_distribution(None)  # test images come in batches of any size
    name = "best.keras" if lifecycle.use_best(experiment) else "last.keras"
    classifier.model.load_weights(run.checkpoints / name)
    scores = classifier.trained.evaluate(data.test, verbose=0, return_dict=True)
    probabilities = np.asarray(classifier.trained.predict(data.test, verbose=0))
    return lifecycle.finish(
        session, recorder, probabilities, float(scores["loss"]), parameters, layers(classifier)
    )


@contextmanager
def numerics(experiment: Experiment) -> Iterator[None]:
    """Precision as configured; float32 means float32, on CUDA too, where backends would allow TF32."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    precision = experiment.training.precision
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
    keras.config.set_dtype_policy(PRECISIONS[precision])
    _allow_tf32(precision == "tf32")
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def _allow_tf32(allowed: bool) -> None:
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(allowed)
        case "jax":
            import jax

            jax.config.update("jax_default_matmul_precision", "tensorfloat32" if allowed else "highest")
        case "torch":
            import torch

            torch.set_float32_matmul_precision("high" if allowed else "highest")
            torch.backends.cudnn.allow_tf32 = allowed


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
    matrices = draw_matrices(generator, len(images), experiment.augment, experiment.data.image_size)
    images = keras.ops.convert_to_tensor(images.astype(matrices.dtype))
    return keras.ops.convert_to_numpy(compiled(affine)(images, keras.ops.convert_to_tensor(matrices)))


def base_features(classifier: Classifier, dataset: Dataset) -> Dataset:
    """The data set with every image replaced by what the frozen base makes of it: (N, features)."""
    base = classifier.model.get_layer("base")

    def compute(images: np.ndarray) -> np.ndarray:
        return np.asarray(base.predict_on_batch(images.astype(keras.config.floatx())))

    return features.replace_images(dataset, base.get_weights(), compute, classifier.experiment, "keras")


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


def _restore(session: Session, classifier: Classifier, steps: int) -> None:
    path = session.run.checkpoints / "resume.keras"
    try:
        classifier.trained.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds for a damaged file
        raise lifecycle.RunError(f"{path}: cannot be read, the run cannot be resumed ({error})") from error
    iterations = int(keras.ops.convert_to_numpy(classifier.trained.optimizer.iterations))
    session.keep_epochs(iterations // steps)
