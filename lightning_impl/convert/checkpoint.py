"""Weights and checkpoints as plain arrays, in Keras's layout and under the layers' names."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor

from experiment.data import features
from experiment.data.dataset import Dataset
from experiment.deploy.prediction import TrainedRun
from experiment.errors import RunError
from experiment.optimizers import SLOTS
from experiment.protocols.checkpoint import Arrays
from experiment.runs.record import brief
from experiment.training.lifecycle import Session
from experiment.training.recorder import Recorder
from lightning_impl.callbacks import LearningRateScheduler, build_callbacks
from lightning_impl.checkpoint import load as load_checkpoint
from lightning_impl.classifier import Classifier, build_classifier
from lightning_impl.data import build_data
from lightning_impl.fit import build_trainer
from lightning_impl.keras_semantics import ReduceLROnPlateau
from lightning_impl.model import as_keras, count_parameters
from lightning_impl.optimizers import restore_slots, slots
from lightning_impl.precision import use_gpu
from lightning_impl.weights import assign, by_name, load, to_array, weights


def read_checkpoints(trained: TrainedRun) -> dict[str, Arrays]:
    """The run's best and last checkpoint, as `experiment.protocols.checkpoint` has them; RunError for a
    damaged file."""
    classifier = build_classifier(trained.experiment, len(trained.class_names), pretrained=False)
    _load_state(classifier, trained, "best.ckpt")
    best = weights(classifier.network)
    state = _load_state(classifier, trained, "last.ckpt")
    last = weights(classifier.network)
    optimizer = classifier.configure_optimizers()
    optimizer.load_state_dict(state["optimizer_states"][0])
    return {
        "best": {f"weights/{name}": array for name, array in best.items()},
        "last": {f"weights/{name}": array for name, array in last.items()}
        | {
            "iterations": np.array(state["global_step"]),
            "learning_rate": np.array(optimizer.param_groups[0]["lr"]),
        }
        | {
            f"{slot}/{name}": to_array(as_keras(layer, values[parameter]))
            for slot, values in slots(optimizer).items()
            for name, (layer, parameter) in by_name(classifier.network).items()
            if parameter in values
        },
    }


def write_checkpoints(session: Session, recorder: Recorder, checkpoints: dict[str, Arrays]) -> None:
    """Write the files that `fit` would have left, from what `read_checkpoints` of either side found."""
    experiment, dataset = session.experiment, session.dataset
    classifier = build_classifier(
        experiment,
        len(dataset.class_names),
        session.class_weights,
        features.usable(experiment),
        pretrained=False,
    )
    data = build_data(experiment, dataset)
    callbacks = build_callbacks(experiment, recorder)
    trainer = build_trainer(experiment, [*callbacks, _Retrace(recorder, checkpoints, callbacks)])
    trainer.fit(classifier, data)


def evaluate(trained: TrainedRun, dataset: Dataset) -> tuple[np.ndarray, float, dict[str, int]]:
    """Probabilities (N, classes) on the test split, the loss on it, and the numbers of parameters."""
    classifier = build_classifier(trained.experiment, len(trained.class_names), pretrained=False)
    classifier.network = load_checkpoint(trained).network
    device = torch.device("cuda" if use_gpu(trained.experiment) else "cpu")
    data = build_data(trained.experiment, dataset, device)
    trainer = build_trainer(trained.experiment, [])
    [scores] = trainer.test(classifier, data, verbose=False)
    batches: Any = trainer.predict(classifier, data)
    return torch.cat(batches).cpu().numpy(), scores["test_loss"], count_parameters(classifier.network)


class _Retrace(Callback):
    """Brings a Trainer to where it stood after each recorded epoch, and saves there; trains nothing.

    A Trainer whose `fit` has begun has all that a checkpoint holds, in the form that its Lightning writes.
    """

    def __init__(self, recorder: Recorder, checkpoints: dict[str, Arrays], callbacks: list[Callback]) -> None:
        self.recorder, self.checkpoints = recorder, checkpoints
        kinds = (LearningRateScheduler, ReduceLROnPlateau, EarlyStopping)
        self.counting = [callback for callback in callbacks if isinstance(callback, kinds)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        rows, folder = self.recorder.rows, self.recorder.run.checkpoints
        for epoch, row in enumerate(rows):
            _advance(trainer, epoch)
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in row.items()})
            for callback in self.counting:
                callback.on_train_epoch_start(trainer, pl_module)
            if row is rows[-1]:
                _load_slots(pl_module, trainer.optimizers[0], self.checkpoints["last"])
            for callback in self.counting:
                callback.on_train_epoch_end(trainer, pl_module)
            if row is self.recorder.best_row:
                load(pl_module.network, _weights(self.checkpoints["best"]))
                trainer.save_checkpoint(folder / "best.ckpt", weights_only=True)
        load(pl_module.network, _weights(self.checkpoints["last"]))
        trainer.save_checkpoint(folder / "last.ckpt")
        trainer.should_stop = True


def _advance(trainer: pl.Trainer, epoch: int) -> None:
    """Set a Trainer's counts to those at the end of an epoch, counted from 0."""
    fit, steps = trainer.fit_loop, int(trainer.num_training_batches)
    for count in (fit.epoch_progress.total, fit.epoch_progress.current):
        _fill(count, epoch + 1)
        count.completed = epoch  # until the hooks of its end are done
    trained = fit.epoch_loop.batch_progress
    steps_taken = fit.epoch_loop.automatic_optimization.optim_progress.optimizer
    for progress in (trained, steps_taken.step, steps_taken.zero_grad):
        _fill(progress.total, steps * (epoch + 1))
        _fill(progress.current, steps)
    fit.epoch_loop._batches_that_stepped = trained.total.completed
    validated = fit.epoch_loop.val_loop.batch_progress
    for count in (validated.total, validated.current):
        _fill(count, int(trainer.num_val_batches[0]))
    trained.is_last_batch = validated.is_last_batch = True


def _fill(count: Any, number: int) -> None:
    for name in vars(count):
        setattr(count, name, number)


def _load_slots(classifier: Classifier, optimizer: torch.optim.Optimizer, last: Arrays) -> None:
    owned = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    values: dict[str, dict[Tensor, Tensor]] = defaultdict(dict)
    for slot in SLOTS:
        for name, (layer, parameter) in by_name(classifier.network).items():
            if parameter in owned and (key := f"{slot}/{name}") in last:
                values[slot][parameter] = torch.empty_like(parameter)
                assign(as_keras(layer, values[slot][parameter]), last[key], key)
    restore_slots(optimizer, values, int(last["iterations"]))


def _weights(checkpoint: Arrays) -> Arrays:
    return {k.removeprefix("weights/"): v for k, v in checkpoint.items() if k.startswith("weights/")}


def _load_state(classifier: Classifier, trained: TrainedRun, name: str) -> dict[str, Any]:
    path = trained.run.checkpoints / name
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        classifier.load_state_dict(checkpoint["state_dict"])
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error
    return checkpoint
