"""What happens around the steps of a training run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO

from experiment import randomness
from experiment.config import Experiment
from experiment.system.files import replacing
from experiment.training.recorder import Recorder
from lightning_impl.data import Batch
from lightning_impl.dropout import SharedDropout
from lightning_impl.keras_semantics import ReduceLROnPlateau


def build_callbacks(experiment: Experiment, recorder: Recorder) -> list[Callback]:
    """The callbacks of the configured training, in the order in which they act at the end of an epoch."""
    training = experiment.training
    callbacks: list[Callback] = []
    if training.schedule.kind != "constant":
        callbacks.append(LearningRateScheduler(experiment))
    callbacks += [StepSeeds(experiment.seed), Record(recorder)]
    plateau = training.plateau
    if plateau.patience is not None:
        callbacks.append(
            ReduceLROnPlateau(
                plateau.patience,
                plateau.factor,
                plateau.min_delta,
                plateau.cooldown,
                plateau.min_learning_rate,
            )
        )
    stopping = training.early_stopping
    if stopping.patience is not None:
        mode = "min" if training.monitor == "val_loss" else "max"
        callbacks.append(
            EarlyStopping(
                training.monitor, patience=stopping.patience, min_delta=stopping.min_delta, mode=mode
            )
        )
    return [*callbacks, SaveCheckpoints(recorder)]


class StepSeeds(Callback):
    """Makes every step's dropout a function of (seed, epoch, step), so that a resumed run repeats it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.shared = [layer for layer in pl_module.modules() if isinstance(layer, SharedDropout)]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        for layer in self.shared:
            # Of batches: several of them may be accumulated to one step of the optimizer.
            layer.step = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
            layer.first = batch.first
        position = (trainer.current_epoch, batch_idx)
        if trainer.world_size > 1:
            position = (*position, batch.first)
        seed_devices(randomness.derived_seed(self.seed, "dropout", *position))


def seed_devices(seed: int) -> None:
    """torch.manual_seed for the devices in use: it would record its caller's stack for those that are not."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class Record(Callback):
    """Reports steps and epochs to the run record."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.recorder.listen()  # Lightning has just put handlers of its own before ours

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.recorder.epoch_begin(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        # A signal to one process stops all, after the same step: one that goes on would wait for ever.
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(
            bool(self.recorder.stopping), all=False
        ):
            self.recorder.stopping = self.recorder.stopping or signal.SIGTERM
        self.recorder.step(batch.total, lambda: self._means(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        loss, accuracy = self._means(pl_module)
        self.recorder.epoch_end(
            loss=loss,
            accuracy=accuracy,
            val_loss=trainer.callback_metrics["val_loss"].item(),
            val_accuracy=trainer.callback_metrics["val_accuracy"].item(),
            learning_rate=self.learning_rate,
        )

    @staticmethod
    def _means(module: Any) -> tuple[float, float]:
        return module.mean(module.train_loss).item(), module.mean(module.train_accuracy).item()


class LearningRateScheduler(Callback):
    """Sets the learning rate of each epoch."""

    def __init__(self, experiment: Experiment) -> None:
        self.training = experiment.training

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        factor = self.training.schedule.factor(trainer.current_epoch, self.training.epochs)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.training.learning_rate * factor


class SaveCheckpoints(Checkpoint):
    """Writes checkpoints/last.ckpt after every epoch, to resume from, and best.ckpt after the best."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        checkpoints = self.recorder.run.checkpoints
        if self.recorder.last_is_best:
            trainer.save_checkpoint(checkpoints / "best.ckpt")
        trainer.save_checkpoint(checkpoints / "last.ckpt")


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them; Lightning writes in TMPDIR, and then copies."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
