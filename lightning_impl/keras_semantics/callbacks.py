"""Callbacks that act when Keras's do."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class ReduceLROnPlateau(Callback):
    """Keras's ReduceLROnPlateau, on any optimizer: acts when `wait >= patience`, with an absolute threshold.

    It looks at `monitor` once an epoch, after the validation, and passes over epochs that had none. Every
    group of every optimizer is reduced, down to `min_learning_rate`. mode: "min" or "max". On several
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
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode {mode} must be min or max")
        self.patience, self.factor, self.min_delta = patience, factor, abs(min_delta)
        self.cooldown, self.min_learning_rate = cooldown, min_learning_rate
        self.monitor, self.sign = monitor, 1.0 if mode == "min" else -1.0
        self.best, self.wait, self.cooldown_counter = math.inf * self.sign, 0, 0
        self._validates = self._validated = False  # the metric comes from validation; and it came just now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before = trainer.callback_metrics.get(self.monitor)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.callback_metrics.get(self.monitor) is not self._before:
            self._validates, self._validated = True, not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._validates and not self._validated:
            return  # what stands there is an earlier epoch's
        self._validated = False
        if self.monitor not in trainer.callback_metrics:
            if (trainer.check_val_every_n_epoch or 2) > 1 and trainer.enable_validation:
                return  # it may come with the first validation
            raise RuntimeError(
                f"ReduceLROnPlateau looks at {self.monitor}, which nothing logs; there are: "
                f"{', '.join(sorted(trainer.callback_metrics)) or 'no metrics'}"
            )
        current = float(trainer.callback_metrics[self.monitor])
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.sign * current + self.min_delta < self.sign * self.best:
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
