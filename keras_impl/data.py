"""Batches for Keras: whole batches indexed from uint8 arrays, with the parameters that augment them."""

from __future__ import annotations

import keras
import numpy as np

from experiment import randomness
from experiment.config import Experiment
from experiment.data.dataset import Dataset, Split
from keras_impl.augment import as_inputs


class Batches(keras.utils.PyDataset):
    """A split in batches, in the order that both sides share; the last batch may be smaller.

    A batch is ({"images": uint8 (N, S, S, 3), and what `augment.as_inputs` makes of its parameters} or images
    alone, one-hot labels).
    `epoch`, counted from 0, is set before each epoch.
    """

    def __init__(self, split: Split, experiment: Experiment, classes: int, training: bool) -> None:
        super().__init__()
        self.split, self.experiment, self.classes, self.training = split, experiment, classes, training
        self.epoch = 0
        self._order: tuple[int, np.ndarray] = (-1, np.arange(len(split)))

    def __len__(self) -> int:
        return -(-len(self.split) // self.experiment.training.batch_size)

    def __getitem__(self, step: int):
        size = self.experiment.training.batch_size
        images, labels = self.split.batch(self._positions()[step * size : (step + 1) * size])
        inputs = images
        if self.experiment.augment.kind != "none":
            inputs = {"images": images, **self._augmentation(step, len(labels))}
        return inputs, np.eye(self.classes, dtype=keras.config.floatx())[labels]

    def _positions(self) -> np.ndarray:
        if self.training and self._order[0] != self.epoch:
            order = randomness.training_order(self.experiment, self.epoch, self.split.labels)
            self._order = (self.epoch, order)
        return self._order[1]

    def _augmentation(self, step: int, count: int) -> dict[str, np.ndarray]:
        epoch, size = (self.epoch if self.training else 0), self.experiment.data.image_size
        generator = randomness.generator(self.experiment.seed, "augment", epoch, step)
        # Of validation they are not looked at.
        return as_inputs(randomness.augmentation(generator, count, self.experiment.augment, size), size)


class DataModule:
    """The three splits of a data set, as `fit`, `evaluate` and `predict` take them."""

    def __init__(self, dataset: Dataset, experiment: Experiment) -> None:
        classes = len(dataset.class_names)
        self.train = Batches(dataset.train, experiment, classes, training=True)
        self.validation = Batches(dataset.validation, experiment, classes, training=False)
        self.test = Batches(dataset.test, experiment, classes, training=False)
