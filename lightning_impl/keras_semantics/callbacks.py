"""Callbacks that act when Keras's do."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import Tensor


class _Watching(Callback):
    """Looks at a metric once an epoch, after the validation, and passes over epochs that had none."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"{type(self).__name__}: mode {mode} must be min or max")
        self.monitor, self.sign, self.min_delta = monitor, 1.0 if mode == "min" else -1.0, abs(min_delta)
        self._validates = self._validated = False  # the metric comes from validation; and it came just now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before = trainer.callback_metrics.get(self.monitor)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.callback_metrics.get(self.monitor) is not self._before:
            self._validates, self._validated = True, not trainer.sanity_checking

    def current(self, trainer: pl.Trainer) -> float | None:
        """The metric of the epoch that ends, None without one; RuntimeError where nothing logs it."""
        if self._validates and not self._validated:
            return None  # what stands there is an earlier epoch's
        self._validated = False
        if self.monitor not in trainer.callback_metrics:
            if (trainer.check_val_every_n_epoch or 2) > 1 and trainer.enable_validation:
                return None  # it may come with the first validation
            raise RuntimeError(
                f"{type(self).__name__} looks at {self.monitor}, which nothing logs; there are: "
                f"{', '.join(sorted(trainer.callback_metrics)) or 'no metrics'}"
            )
        return float(trainer.callback_metrics[self.monitor])

    def improves(self, value: float, other: float) -> bool:
        return self.sign * value + self.min_delta < self.sign * other


class ReduceLROnPlateau(_Watching):
    """Keras's ReduceLROnPlateau, on any optimizer: acts when `wait >= patience`, with an absolute threshold.

    Every group of every optimizer is reduced, down to `min_learning_rate`. mode: "min" or "max". On several
    processes the metric must be the same on each (`self.log(..., sync_dist=True)`).

    Raises ValueError for a factor or a mode that Keras refuses, RuntimeError where nothing logs `monitor`.
    """

    def __init__(
        self,
        patience: int = 10,
        factor: float = 0.1,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_learning_rate: float = 0.0,
        monitor: str = "val_loss",
        mode: str = "min",
    ) -> None:
        if factor >= 1:
            raise ValueError(f"ReduceLROnPlateau: factor {factor} must be less than 1")
        super().__init__(monitor, mode, min_delta)
        self.patience, self.factor = patience, factor
        self.cooldown, self.min_learning_rate = cooldown, min_learning_rate
        self.best, self.wait, self.cooldown_counter = math.inf * self.sign, 0, 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        current = self.current(trainer)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(current, self.best):
            self.best, self.wait = current, 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce([group for optimizer in trainer.optimizers for group in optimizer.param_groups])

    def _reduce(self, groups: list[dict[str, Any]]) -> None:
        for group in groups:
            old = float(group["lr"])
            if old <= self.min_learning_rate:
                continue
            new = max(old * self.factor, self.min_learning_rate)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(new)  # what is compiled holds this tensor
            else:
                group["lr"] = new
            self.cooldown_counter, self.wait = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.wait = state_dict["best"], state_dict["wait"]
        self.cooldown_counter = state_dict["cooldown_counter"]


class EarlyStopping(_Watching):
    """Keras's EarlyStopping: ends training when `wait >= patience`, and may put the best weights back.

    restore_best_weights: at the end of training, stopped or not, the network has the weights and statistics
    of its best epoch. baseline: what the metric must beat for `wait` to begin anew. start_from_epoch: the
    first epoch, from 0, that counts. Raises ValueError for a mode that Keras refuses, RuntimeError where
    nothing logs `monitor`.
    """

    def __init__(
        self,
        patience: int = 0,
        min_delta: float = 0.0,
        restore_best_weights: bool = False,
        baseline: float | None = None,
        start_from_epoch: int = 0,
        monitor: str = "val_loss",
        mode: str = "min",
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.baseline = patience, baseline
        self.restore, self.start_from_epoch = restore_best_weights, start_from_epoch
        self.best: float | None = None
        self.wait = 0
        self.best_weights: dict[str, Tensor] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        current, epoch = self.current(trainer), trainer.current_epoch
        if current is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        better = self.best is None or self.improves(current, self.best)
        if self.restore and (better or self.best_weights is None):
            self.best_weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        if better:
            self.best = current
            if self.baseline is None or self.improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.best_weights is not None:
            pl_module.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "best_weights": self.best_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.wait = state_dict["best"], state_dict["wait"]
        self.best_weights = state_dict["best_weights"]


class AverageAtEnd(EMAWeightAveraging):
    """Keras's use_ema: the exponential average of the weights takes their place when training ends.

    Unlike Lightning's own, it is not what the validations in between are made with.
    """

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass
