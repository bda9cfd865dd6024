"""The compiled model: loss, metrics and optimizer around a model."""

from __future__ import annotations

import keras
import numpy as np

from experiment import randomness
from experiment.config import Experiment
from experiment.system import devices
from keras_impl.augment import KerasAugment, as_inputs
from keras_impl.layers.fused_batchnorm import fuse_batch_norm
from keras_impl.model import build_model


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
            self.trained = with_augmentation(self.model, experiment)
        compile_model(self.trained, experiment)


def with_augmentation(model: keras.Model, experiment: Experiment) -> keras.Model:
    """A model of uint8 images and the parameters that augment them, which augments in training alone."""
    size = experiment.data.image_size
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    sample = randomness.augmentation(np.random.default_rng(), 1, experiment.augment, size)
    inputs = {
        name: keras.Input(array.shape[1:], dtype=array.dtype.name, name=name)
        for name, array in as_inputs(sample, size).items()
    }
    augmented = KerasAugment(name="augment", dtype=keras.config.floatx())(images, inputs)
    return keras.Model({"images": images, **inputs}, model(augmented), name="training")


def compile_model(model: keras.Model, experiment: Experiment) -> None:
    """Adam, cross-entropy over one-hot labels, accuracy; the optimizer's variables exist afterwards."""
    training = experiment.training
    model.compile(
        optimizer=keras.optimizers.Adam(training.learning_rate),
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
