"""Batches for Lightning: whole batches indexed from uint8 arrays, made float and augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from experiment import randomness
from experiment.config import Experiment
from experiment.data.dataset import Dataset, Split
from experiment.system import distributed
from lightning_impl.augment import KerasAugment, build_augment

# Images are kept on a GPU when they take up at most this share of its free memory.
RESIDENT_SHARE = 0.5


class Batches(TorchDataset):
    """A split whose items are batches: (images, labels, (epoch, step, None)), or, where the images already
    lie on the device, (their rows, labels, (epoch, step, the array they are rows of)). With several processes
    this one's share of each, and its `ranks.Place` behind the rest."""

    def __init__(self, split: Split, resident: int | None) -> None:
        self.split, self.resident = split, resident

    def __getitem__(self, batch: tuple[int, int, np.ndarray]) -> tuple[Tensor, Tensor, tuple]:
        epoch, step, positions = batch
        place: tuple[int, ...] = ()
        if distributed.world() > 1:
            mine = distributed.share(len(positions))
            place, positions = (mine.start, len(positions)), positions[mine]
        if self.resident is None:
            images, labels = self.split.batch(positions)
        else:
            images, labels = self.split.indices[positions], self.split.labels[positions]
        return torch.from_numpy(images), torch.from_numpy(labels), (epoch, step, self.resident, *place)


class EpochOrder(Sampler):
    """The positions of every batch of an epoch, in the order that both sides share; the last may be smaller.

    Lightning calls `set_epoch`.
    """

    def __init__(self, labels: np.ndarray, experiment: Experiment, training: bool) -> None:
        self.labels, self.experiment, self.training, self.epoch = labels, experiment, training, 0
        self.batch_size = experiment.training.batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, int, np.ndarray]]:
        order = np.arange(len(self.labels))
        if self.training:
            order = randomness.training_order(self.experiment, self.epoch, self.labels)
        for step in range(len(self)):
            yield self.epoch, step, order[step * self.batch_size : (step + 1) * self.batch_size]


class DataModule(pl.LightningDataModule):
    """The three splits of a data set. Batches are (float images (N, 3, S, S) in 0..255, labels (N,))."""

    def __init__(self, dataset: Dataset, experiment: Experiment, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.dataset, self.experiment, self.dtype = dataset, experiment, dtype
        self.augment = build_augment(experiment.augment)
        self.resident: dict[int, Tensor] = {}
        if device.type == "cuda":
            self._keep_on(device)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.train, training=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.validation)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.test)

    def predict_dataloader(self) -> DataLoader:
        return self._loader(self.dataset.test)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple:
        images, labels, (epoch, step, resident, *place) = batch
        if resident is not None:
            images = self.resident[resident][images]
        images = to_float(images, self.dtype)
        if self.trainer is not None and self.trainer.training:
            images = self.augmented(images, epoch, step, tuple(place))
        return (images, labels, tuple(place)) if place else (images, labels)

    def augmented(self, images: Tensor, epoch: int, step: int, place: tuple[int, ...] = ()) -> Tensor:
        """The batch as it is trained on at this epoch and step, both counted from 0.

        place: of several processes, that of `images` in the batch, as `ranks.Place`.
        """
        if self.augment is None:
            return images
        if isinstance(self.augment, KerasAugment):
            self.augment.generator = randomness.generator(self.experiment.seed, "augment", epoch, step)
            self.augment.place = place
        else:
            torch.manual_seed(
                randomness.derived_seed(self.experiment.seed, "augment", epoch, step, *place[:1])
            )
        return self.augment(images).contiguous(memory_format=torch.channels_last)

    def _loader(self, split: Split, training: bool = False) -> DataLoader:
        order = EpochOrder(split.labels, self.experiment, training)
        resident = self._key(split) if self._key(split) in self.resident else None
        return DataLoader(Batches(split, resident), batch_size=None, sampler=order)

    def _keep_on(self, device: torch.device) -> None:
        splits = (self.dataset.train, self.dataset.validation, self.dataset.test)
        arrays = {self._key(split): split.images for split in splits}
        free, _ = torch.cuda.mem_get_info(device)
        if sum(array.nbytes for array in arrays.values()) <= RESIDENT_SHARE * free:
            self.resident = {
                key: torch.from_numpy(np.array(array)).to(device) for key, array in arrays.items()
            }

    @staticmethod
    def _key(split: Split) -> int:
        return id(split.images)  # splits share their images: one copy on the device serves them


def to_float(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (N, S, S, 3) -> float (N, 3, S, S) in 0..255, channels last in memory; features stay (N, F)."""
    return images.to(dtype) if images.dim() == 2 else images.to(dtype).permute(0, 3, 1, 2)
