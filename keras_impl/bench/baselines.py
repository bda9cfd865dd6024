"""python -m keras_impl.bench.baselines [--mode M]: the same model without `train`, for the benchmarks to
compare with.

bare: train_on_batch, without augmentation, callbacks or record. tutorial: fit() on an ImageDataGenerator
that augments, and validation, as the tutorial that this project grew out of has it. input: `train`'s
batches, augmented, and no model; tutorial_input: the generator's. Takes the options of `train`.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiment import randomness
from experiment.config import Experiment
from experiment.data.dataset import Dataset, Split
from experiment.protocols import benchmark
from keras_impl.trace.augmented import stock_generator


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    modes = {"bare": bare, "tutorial": tutorial, "input": read, "tutorial_input": read_tutorial}
    return benchmark.main("keras", modes, argv)


def bare(experiment: Experiment) -> dict[str, Any]:
    from keras_impl.precision import numerics

    seconds = []
    with numerics(experiment):
        model, dataset, targets = _work(experiment)
        train = dataset.train
        size = experiment.training.batch_size
        for epoch in range(experiment.training.epochs):
            order = randomness.training_order(
                experiment.seed, epoch, train.labels, experiment.training.sampling
            )
            started = time.perf_counter()
            for start in range(0, len(order), size):
                images, labels = train.batch(order[start : start + size])
                model.train_on_batch(images, targets[labels])  # returns when the step is done
            seconds.append(time.perf_counter() - started)
    return {"images": len(train), "seconds": seconds}


def tutorial(experiment: Experiment) -> dict[str, Any]:
    import keras

    from keras_impl.precision import numerics

    seconds, ends = [], []

    class Clock(keras.callbacks.Callback):
        # From the end of an epoch's first step: over that Keras may take two seconds, to trace it anew.
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                self.started = time.perf_counter()
            elif batch == len(flow) - 1:
                seconds.append((time.perf_counter() - self.started) * len(flow) / batch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter())

    with numerics(experiment):
        model, dataset, targets = _work(experiment)
        train, held = dataset.train, dataset.validation
        flow = _flow(experiment, train, targets)
        images, labels = held.batch(np.arange(len(held)))
        trained = model.fit(
            flow,
            epochs=experiment.training.epochs,
            validation_data=(images, targets[labels]),
            callbacks=[Clock()],
            verbose=0,
        )
    history = {name: [float(value) for value in values] for name, values in trained.history.items()}
    return {"images": len(train), "seconds": seconds, "ends": ends, "history": history}


def read(experiment: Experiment) -> dict[str, Any]:
    import keras

    from experiment.data.dataset import load
    from keras_impl.augment import KerasAugment
    from keras_impl.data import build_data
    from keras_impl.precision import numerics

    seconds: list[float] = []
    with numerics(experiment):
        data = build_data(experiment, load(experiment.data, experiment.seed)).train
        augment = functools.partial(KerasAugment(), training=True)
        for data.epoch in range(experiment.training.epochs):
            started = time.perf_counter()
            for step in range(len(data)):
                inputs, _ = data[step]
                if isinstance(inputs, dict):
                    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
                    inputs = augment(tensors.pop("images"), tensors)
            keras.ops.convert_to_numpy(inputs)  # waits for the device
            seconds.append(time.perf_counter() - started)
    return {"images": len(data.split), "seconds": seconds}


def read_tutorial(experiment: Experiment) -> dict[str, Any]:
    from experiment.data.dataset import load

    dataset, seconds = load(experiment.data, experiment.seed), []
    flow = _flow(experiment, dataset.train, np.eye(len(dataset.class_names)))
    for _ in range(experiment.training.epochs):
        started = time.perf_counter()
        for step in range(len(flow)):
            flow[step]
        seconds.append(time.perf_counter() - started)
    return {"images": len(dataset.train), "seconds": seconds}


def _flow(experiment: Experiment, train: Split, targets: np.ndarray) -> Any:
    """The split as an ImageDataGenerator gives it, augmented."""
    images, labels = train.batch(np.arange(len(train)))
    generator = stock_generator(experiment.augment)
    return generator.flow(images, targets[labels], batch_size=experiment.training.batch_size)


def _work(experiment: Experiment) -> tuple[Any, Dataset, np.ndarray]:
    """The compiled model, the data set, and the one-hot rows of its classes."""
    import keras

    from experiment.data.dataset import load
    from keras_impl.classifier import compile_model, use_xla
    from keras_impl.model import build_model

    dataset, training = load(experiment.data, experiment.seed), experiment.training
    model = build_model(experiment, len(dataset.class_names))
    compile_model(
        model,
        training.learning_rate,
        training.optimizer,
        training.optimizer_settings,
        training.label_smoothing,
        use_xla(experiment),
    )
    return model, dataset, np.eye(len(dataset.class_names), dtype=keras.config.floatx())


if __name__ == "__main__":
    sys.exit(main())
