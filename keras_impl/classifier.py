"""The compiled model: loss, metrics and optimizer around a model."""

from __future__ import annotations

import keras

from experiment.config import Experiment
from experiment.system import devices
from keras_impl.augment import KerasAugment
from keras_impl.layers.fused_batchnorm import fuse_batch_norm
from keras_impl.model import build_model
from keras_impl.optimizers import build_optimizer


class Classifier:
    """An image classifier and what of it is trained.

    model: images (N, S, S, 3) in 0..255 -> probabilities (N, classes). trained: the compiled model that
    `fit` takes, which shares the layers of `model`: with augmentation before it, or its head alone, on
    the features that a frozen base gave before. pretrained: as in `build_model`.
    """

    def __init__(
        self, experiment: Experiment, classes: int, on_features: bool = False, pretrained: bool = True
    ) -> None:
        self.experiment = experiment
        self.model = build_model(experiment, classes, pretrained)
        fuse_batch_norm(self.model)
        self.trained = self.model
        if on_features:
            self.trained = self.model.get_layer("head")
        elif experiment.augment.kind != "none":
            self.trained = with_augmentation(self.model, experiment.data.image_size)
        compile_model(self.trained, experiment)


def with_augmentation(model: keras.Model, size: int) -> keras.Model:
    """A model of uint8 images and the matrices that place them, which augments in training alone."""
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    matrices = keras.Input((2, 3), dtype=keras.config.floatx(), name="matrices")
    augmented = KerasAugment(name="augment", dtype=keras.config.floatx())(images, matrices)
    return keras.Model({"images": images, "matrices": matrices}, model(augmented), name="training")


def compile_model(model: keras.Model, experiment: Experiment) -> None:
    """The optimizer, cross-entropy over one-hot labels, accuracy; all variables exist afterwards."""
    training = experiment.training
    model.compile(
        optimizer=build_optimizer(training.optimizer, training.learning_rate, training.optimizer_settings),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=training.label_smoothing),
        metrics=["accuracy"],
        jit_compile=use_xla(experiment),
    )
    model.optimizer.build(model.trainable_variables)


def use_xla(experiment: Experiment) -> bool | str:
    """As configured, else Keras's choice, but for TensorFlow, where XLA on a CPU is slower than oneDNN."""
    if experiment.training.compile:
        return True
    on_cpu = devices.wanted(experiment.gpus) == 0
    return False if on_cpu and keras.backend.backend() == "tensorflow" else "auto"
