"""python -m keras_impl.bare [--mode M]: the same model without `train`, for the benchmarks to compare with.

bare: train_on_batch, without augmentation, callbacks or record. tutorial: fit() on an ImageDataGenerator
that augments, as the tutorial that this project grew out of has it. Takes the options of `train`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiment import loops, randomness
from experiment.config import Experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return loops.main("keras", {"bare": bare, "tutorial": tutorial}, argv)


def bare(experiment: Experiment) -> tuple[int, list[float]]:
    from keras_impl.fit import numerics

    seconds = []
    with numerics(experiment):
        model, train, targets = _work(experiment)
        size = experiment.training.batch_size
        for epoch in range(experiment.training.epochs):
            order = randomness.epoch_order(experiment.seed, epoch, len(train))
            started = time.perf_counter()
            for start in range(0, len(order), size):
                images, labels = train.batch(order[start : start + size])
                model.train_on_batch(images, targets[labels])  # returns when the step is done
            seconds.append(time.perf_counter() - started)
    return len(train), seconds


def tutorial(experiment: Experiment) -> tuple[int, list[float]]:
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    from keras_impl.fit import numerics

    seconds = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.started)

    augment = experiment.augment
    generator = ImageDataGenerator(
        rotation_range=augment.rotation,
        width_shift_range=augment.width_shift,
        height_shift_range=augment.height_shift,
        zoom_range=augment.zoom,
        horizontal_flip=augment.horizontal_flip,
    )
    with numerics(experiment):
        model, train, targets = _work(experiment)
        images, labels = train.batch(np.arange(len(train)))
        flow = generator.flow(images, targets[labels], batch_size=experiment.training.batch_size)
        model.fit(flow, epochs=experiment.training.epochs, callbacks=[Clock()], verbose=0)
    return len(train), seconds


def _work(experiment: Experiment) -> tuple[Any, Any, np.ndarray]:
    """The compiled model, the training split, and the one-hot rows of its classes."""
    import keras

    from experiment.datasets import load
    from keras_impl.classifier import compile_model
    from keras_impl.model import build_model

    dataset = load(experiment.data, experiment.seed)
    model = build_model(experiment, len(dataset.class_names))
    compile_model(model, experiment)
    return model, dataset.train, np.eye(len(dataset.class_names), dtype=keras.config.floatx())


if __name__ == "__main__":
    sys.exit(main())
