"""Batches for Lightning: whole batches indexed from uint8 arrays, made float and augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from experiment import randomness
from experiment.config import Augment, Experiment, Sampling
from experiment.data.dataset import Dataset, Split
from experiment.system import distributed
from lightning_impl.augment import KerasAugment, build_augment
from lightning_impl.precision import to_float

# Images are kept on a GPU when they take up at most this share of its free memory.
RESIDENT_SHARE = 0.5


class Batch(NamedTuple):
    """A batch, or with several processes this one's part of it.

    images: float (N, 3, S, S) in 0..255; as the loader gives them uint8 (N, S, S, 3), or, where all images
    lie on the device, their rows (N,). epoch, step: counted from 0. first: the place of this part's
    first image in the whole batch. total: images of the whole batch.
    """

    images: Tensor
    labels: Tensor  # (N,) int64
    epoch: int
    step: int
    first: int
    total: int


class Batches(TorchDataset):
    """A split whose items are batches; their images are rows of its array where that is `resident`."""

    def __init__(self, split: Split, resident: bool) -> None:
        self.split, self.resident = split, resident

    def __getitem__(self, batch: tuple[int, int, np.ndarray]) -> Batch:
        epoch, step, positions = batch
        part = distributed.share(len(positions))
        mine = positions[part]
        if self.resident:
            images, labels = self.split.indices[mine], self.split.labels[mine]
        else:
            images, labels = self.split.batch(mine)
        return Batch(
            torch.from_numpy(images), torch.from_numpy(labels), epoch, step, part.start, len(positions)
        )


class EpochOrder(Sampler):
    """The positions of every batch of an epoch, in the order that both sides share; the last may be smaller.

    sampling: as in `randomness.training_order`; None: as the labels stand. Lightning calls `set_epoch`.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int, sampling: Sampling | None) -> None:
        self.labels, self.batch_size, self.seed = labels, batch_size, seed
        self.sampling: Sampling | None = sampling
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, int, np.ndarray]]:
        order = np.arange(len(self.labels))
        if self.sampling is not None:
            order = randomness.training_order(self.seed, self.epoch, self.labels, self.sampling)
        for step in range(len(self)):
            yield self.epoch, step, order[step * self.batch_size : (step + 1) * self.batch_size]


class DataModule(pl.LightningDataModule):
    """The three splits of a data set in batches, the training split's augmented.

    seed: of the order and of what is drawn to augment. device: a GPU, to keep the images there if they fit.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 64,
        seed: int = 1,
        augment: Augment | None = None,
        sampling: Sampling = "shuffle",
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.sampling: Sampling = sampling
        self.augment = None if augment is None else build_augment(augment)
        self.resident = None if device is None else resident(dataset, device)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.train, self.sampling)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.validation)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.test)

    def predict_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.test)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images = batch.images if self.resident is None else self.resident[batch.images]
        batch = batch._replace(images=to_float(images, torch.get_default_dtype()))
        if self.trainer is not None and self.trainer.training:
            batch = batch._replace(images=self.augmented(batch))
        return batch

    def augmented(self, batch: Batch) -> Tensor:
        """The images of a batch of floats as they are trained on at its epoch and step."""
        images, augment = batch.images, self.augment
        if augment is None:
            return images
        if isinstance(augment, KerasAugment):
            augment.generator = randomness.generator(self.seed, "augment", batch.epoch, batch.step)
            augment.place = (batch.first, batch.total)
        else:
            position = (batch.epoch, batch.step)
            if len(images) < batch.total:  # every process draws for itself
                position = (*position, batch.first)
            torch.manual_seed(randomness.derived_seed(self.seed, "augment", *position))
        return augment(images).contiguous(memory_format=torch.channels_last)

    def _loader(self, split: Split, sampling: Sampling | None = None) -> DataLoader:
        order = EpochOrder(split.labels, self.batch_size, self.seed, sampling)
        return DataLoader(Batches(split, self.resident is not None), batch_size=None, sampler=order)


def build_data(experiment: Experiment, dataset: Dataset, device: torch.device | None = None) -> DataModule:
    """The data module of an experiment."""
    training = experiment.training
    return DataModule(
        dataset, training.batch_size, experiment.seed, experiment.augment, training.sampling, device
    )


def resident(dataset: Dataset, device: torch.device) -> Tensor | None:
    """All images of a data set on a GPU, or None where that is none, or they would crowd it."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if dataset.images.nbytes > RESIDENT_SHARE * free:
        return None
    return torch.from_numpy(np.array(dataset.images[:])).to(device)
