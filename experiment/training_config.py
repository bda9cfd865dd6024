"""How a model is trained: the `training` section of an experiment, and what every section is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MANY = 1_000_000  # more epochs, images a step or units than anybody has; a typing error, to be told at once


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True, allow_inf_nan=False)


def fault(error: ValidationError) -> str:
    """The first fault that a schema found, in a line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    place = [str(part) for part in first["loc"]]  # among them the members of a union, as function-after[...]
    return f"{'.'.join(part for part in place if '[' not in part)}: {message}"


class Schedule(Section):
    kind: Literal["constant", "cosine", "step"] = Field(
        default="constant", description="learning rate by epoch"
    )
    step_epochs: int = Field(default=10, ge=1, le=MANY, description="step: epochs between two drops")
    step_factor: float = Field(default=0.1, gt=0, le=1, description="step: factor of one drop")
    final_factor: float = Field(default=0.0, ge=0, le=1, description="cosine: last over first learning rate")

    def factor(self, epoch: int, epochs: int) -> float:
        """Learning rate of an epoch (counted from 0) as a share of the initial one.

        Cosine: Loshchilov and Hutter, SGDR (arXiv 1608.03983), eq. 5, without restarts.
        """
        if self.kind == "cosine":
            progress = min(epoch / max(epochs - 1, 1), 1.0)
            return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        if self.kind == "step":
            return self.step_factor ** (epoch // self.step_epochs)
        return 1.0


class Plateau(Section):
    patience: int | None = Field(
        default=None, ge=1, le=MANY, description="epochs without improvement; null: off"
    )
    factor: float = Field(default=0.5, gt=0, lt=1, description="factor of one reduction")
    min_delta: float = Field(
        default=1e-4, ge=0, description="smallest change of val_loss that counts (absolute)"
    )
    cooldown: int = Field(default=0, ge=0, le=MANY, description="epochs to wait after a reduction")
    min_learning_rate: float = Field(default=0.0, ge=0, description="floor of the learning rate")


class EarlyStopping(Section):
    patience: int | None = Field(
        default=None, ge=0, le=MANY, description="epochs without improvement; null: off"
    )
    min_delta: float = Field(default=0.0, ge=0, description="smallest change that counts (absolute)")
    restore_best_weights: bool = Field(default=True, description="end with the weights of the best epoch")

    def ended(self, values: Sequence[float], lower_is_better: bool) -> int | None:
        """After how many epochs of these values of the monitor training ends, or None where it goes on."""
        sign, best, wait = 1.0 if lower_is_better else -1.0, math.inf, 0
        for epoch, value in enumerate(values, 1):
            wait += 1
            if sign * value + self.min_delta < best:
                best, wait = sign * value, 0
            elif self.patience is not None and wait >= self.patience:
                return epoch
        return None


class Training(Section):
    epochs: int = Field(default=20, ge=1, le=MANY, description="passes over the training split")
    batch_size: int = Field(
        default=64, ge=1, le=MANY, description="images a step; the last batch of an epoch may be smaller"
    )
    learning_rate: float = Field(default=1e-3, gt=0, lt=10, description="initial learning rate of Adam")
    monitor: Literal["val_loss", "val_accuracy"] = Field(
        default="val_loss", description="decides the best epoch"
    )
    early_stopping: EarlyStopping = EarlyStopping()
    plateau: Plateau = Plateau()
    schedule: Schedule = Schedule()
    l2: float = Field(default=0.0, ge=0, description="adds l2 * sum(w^2) of every trained kernel to the loss")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the target spread over all classes"
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        default="shuffle",
        description="balanced: an epoch shows every class equally often, a rare one's images again and again",
    )
    class_weights: Literal["balanced"] | list[float] | None = Field(
        default=None, description="balanced, or one weight a class, for the training loss"
    )
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = Field(
        default="float32",
        description="bfloat16 is mixed; tf32: products of 10 bits, on CUDA alone",
    )
    sync_batch_norm: bool = Field(
        default=True, description="several processes: statistics of the whole batch, not of each one's share"
    )
    compile: bool = Field(
        default=False, description="compile the step: torch.compile on Lightning's side, XLA on Keras's"
    )
    dropout_masks: Literal["own", "shared"] = Field(
        default="own", description="each framework's own dropout masks, or the same on both sides"
    )

    @model_validator(mode="after")
    def _one_schedule(self) -> Training:
        if self.plateau.patience is not None and self.schedule.kind != "constant":
            raise ValueError(
                "training.plateau and training.schedule both set the learning rate: "
                "leave training.plateau.patience null or training.schedule.kind constant"
            )
        if self.sampling == "balanced" and self.class_weights is not None:
            raise ValueError(
                "training.sampling balanced and training.class_weights both make up for rare classes: "
                "leave training.class_weights null or training.sampling shuffle"
            )
        if isinstance(self.class_weights, list) and any(w < 0 for w in self.class_weights):
            raise ValueError("training.class_weights must not be negative")
        return self
