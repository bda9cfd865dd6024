"""The compiled model: loss, metrics and optimizer around a model."""

from __future__ import annotations

import keras
import numpy as np

from experiment import randomness
from experiment.config import Augment, Experiment
from experiment.optimizers import Name, Setting
from experiment.system import devices
from keras_impl.augment import KerasAugment, as_inputs
from keras_impl.layers.fused_batchnorm import fuse_batch_norm
from keras_impl.model import build_model
from keras_impl.optimizers import build_optimizer


class Classifier:
    """An image classifier and what of it is trained.

    model: images (N, S, S, 3) in 0..255 -> probabilities (N, classes). trained: the compiled model that
    `fit` takes, which shares the layers of `model`: with augmentation before it (`augmented`), or its layer
    `head` alone, on the features that a frozen base gave before (`on_features`). learning_rate, optimizer,
    settings, label_smoothing, jit_compile: as in `compile_model`.
    """

    def __init__(
        self,
        model: keras.Model,
        learning_rate: float = 1e-3,
        optimizer: Name = "adam",
        settings: dict[str, Setting] | None = None,
        label_smoothing: float = 0.0,
        on_features: bool = False,
        augment: Augment | None = None,
        jit_compile: bool | str = "auto",
    ) -> None:
        self.model = model
        fuse_batch_norm(model)
        self.trained = model
        if on_features:
            self.trained = model.get_layer("head")
        elif augment is not None:
            self.trained = with_augmentation(model, augment)
        compile_model(self.trained, learning_rate, optimizer, settings, label_smoothing, jit_compile)


def build_classifier(
    experiment: Experiment, classes: int, on_features: bool = False, pretrained: bool = True
) -> Classifier:
    """The configured model in a Classifier; pretrained: as in `build_model`."""
    training, augment = experiment.training, experiment.augment
    return Classifier(
        build_model(experiment, classes, pretrained),
        training.learning_rate,
        training.optimizer,
        training.optimizer_settings,
        training.label_smoothing,
        on_features,
        None if augment.kind == "none" else augment,
        use_xla(experiment),
    )


def with_augmentation(model: keras.Model, augment: Augment) -> keras.Model:
    """A model of uint8 images and the parameters that augment them, which augments in training alone."""
    size = model.input_shape[1]
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    sample = randomness.augmentation(np.random.default_rng(), 1, augment, size)
    inputs = {
        name: keras.Input(array.shape[1:], dtype=array.dtype.name, name=name)
        for name, array in as_inputs(sample, size).items()
    }
    augmented = KerasAugment(name="augment", dtype=keras.config.floatx())(images, inputs)
    return keras.Model({"images": images, **inputs}, model(augmented), name="training")


def compile_model(
    model: keras.Model,
    learning_rate: float = 1e-3,
    optimizer: Name = "adam",
    settings: dict[str, Setting] | None = None,
    label_smoothing: float = 0.0,
    jit_compile: bool | str = "auto",
) -> None:
    """The optimizer of `build_optimizer`, cross-entropy over one-hot labels, accuracy.

    The optimizer's variables exist afterwards.
    """
    model.compile(
        optimizer=build_optimizer(optimizer, learning_rate, settings or {}),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    model.optimizer.build(model.trainable_variables)


def use_xla(experiment: Experiment) -> bool | str:
    """As configured, else Keras's choice, but for TensorFlow, where XLA on a CPU is slower than oneDNN."""
    if experiment.training.compile:
        return True
    on_cpu = devices.wanted(experiment.gpus) == 0
    return False if on_cpu and keras.backend.backend() == "tensorflow" else "auto"
