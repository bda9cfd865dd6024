"""Batches for Keras: whole batches indexed from uint8 arrays, with the parameters that augment them."""

from __future__ import annotations

import keras
import numpy as np

from experiment import randomness
from experiment.config import Augment, Experiment, Sampling
from experiment.data.dataset import Dataset, Split
from keras_impl.augment import as_inputs


class Batches(keras.utils.PyDataset):
    """A split in batches, in the order that both sides share; the last batch may be smaller.

    A batch is (images uint8 (N, S, S, 3), one-hot labels); with `augment`, the images are {"images": uint8
    (N, S, S, 3), and what `augment.as_inputs` makes of their parameters}. sampling: as in
    `randomness.training_order`; None: in the order of the labels, and nothing is drawn. `epoch`, counted from
    0, goes on with each that `fit` ends; set it where training does not begin with the first.
    """

    def __init__(
        self,
        split: Split,
        classes: int,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        self.split, self.classes, self.batch_size, self.seed = split, classes, batch_size, seed
        self.augment = augment
        self.sampling: Sampling | None = sampling
        self.epoch = 0
        self._order: tuple[int, np.ndarray] = (-1, np.arange(len(split)))
        self._begun = self._complete = False

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __getitem__(self, step: int):
        self._complete = self._complete or step == len(self) - 1
        size = self.batch_size
        images, labels = self.split.batch(self._positions()[step * size : (step + 1) * size])
        inputs = images
        if self.augment is not None:
            inputs = {"images": images, **self._augmentation(self.augment, step, images)}
        return inputs, np.eye(self.classes, dtype=keras.config.floatx())[labels]

    def on_epoch_begin(self) -> None:
        self._begun, self._complete = True, False

    def on_epoch_end(self) -> None:
        # Keras also calls it before the first epoch, and after a first batch that it took to build a model.
        if self._begun and self._complete:
            self.epoch += 1
        self._begun = False

    def _positions(self) -> np.ndarray:
        if self.sampling is not None and self._order[0] != self.epoch:
            order = randomness.training_order(self.seed, self.epoch, self.split.labels, self.sampling)
            self._order = (self.epoch, order)
        return self._order[1]

    def _augmentation(self, augment: Augment, step: int, images: np.ndarray) -> dict[str, np.ndarray]:
        epoch, size = (0 if self.sampling is None else self.epoch), images.shape[1]
        generator = randomness.generator(self.seed, "augment", epoch, step)
        # Of validation they are not looked at.
        return as_inputs(randomness.augmentation(generator, len(images), augment, size), size)


class DataModule:
    """The three splits of a data set, as `fit`, `evaluate` and `predict` take them.

    seed: of the order and of what is drawn to augment. augment: what the model's augmentation is told; None
    where it has none.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 64,
        seed: int = 1,
        augment: Augment | None = None,
        sampling: Sampling = "shuffle",
    ) -> None:
        classes = len(dataset.class_names)
        self.train = Batches(dataset.train, classes, batch_size, seed, augment, sampling)
        self.validation = Batches(dataset.validation, classes, batch_size, seed, augment)
        self.test = Batches(dataset.test, classes, batch_size, seed, augment)


def build_data(experiment: Experiment, dataset: Dataset) -> DataModule:
    """The data module of an experiment."""
    training, augment = experiment.training, experiment.augment
    return DataModule(
        dataset,
        training.batch_size,
        experiment.seed,
        None if augment.kind == "none" else augment,
        training.sampling,
    )
