"""The few torch pieces that behave as Keras's do, so that a migrated model trains to the same numbers."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F


def _sum_over_processes(values: Tensor) -> Tensor:
    from torch.distributed.nn.functional import all_reduce  # its gradient is summed, too

    return all_reduce(values)


class BatchNorm(nn.BatchNorm2d):
    """Keras's BatchNormalization over the channel axis of (N, C) or (N, C, H, W).

    Differs from torch's in momentum (Keras 0.99 is torch 0.01), epsilon (1e-3 for 1e-5), and in that the
    moving variance takes up the biased batch variance. A frozen layer (no parameter requires a gradient)
    keeps its statistics and uses them, as Keras's `trainable = False` does.
    """

    def __init__(self, channels: int, epsilon: float = 1e-3, momentum: float = 0.99) -> None:
        super().__init__(channels, eps=epsilon, momentum=1 - momentum)
        self.share = 1 - momentum  # of the newest batch in the moving statistics
        self.synchronised = False  # over the processes of a distributed run

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"expected (N, C) or (N, C, H, W), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        frozen = not (self.weight.requires_grad or self.bias.requires_grad)
        if not self.training or frozen:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if self.synchronised:
            return self._over_processes(input)
        # With momentum 1 these become the batch's own mean and unbiased variance. They are new tensors
        # because autograd holds what it is given: the buffers themselves must not change under it.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        output = torch.batch_norm(
            input, self.weight, self.bias, mean, variance, True, 1.0, self.eps, torch.backends.cudnn.enabled
        )
        count = input.numel() // input.shape[1]
        with torch.no_grad():
            biased = variance * ((count - 1) / count) if count > 1 else torch.zeros_like(variance)
            self.running_mean.lerp_(mean, self.share)
            self.running_var.lerp_(biased, self.share)
        return output

    def _over_processes(self, input: Tensor) -> Tensor:
        """The batch's statistics are those of all processes; nn.SyncBatchNorm does that on CUDA alone."""
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        count = torch.tensor(float(input.numel() // input.shape[1])).to(input)
        sums = _sum_over_processes(torch.cat([input.sum(axes), count[None]]))
        mean = sums[:-1] / sums[-1]
        centred = input - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(axes)) / sums[-1]
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.share)
            self.running_var.lerp_(variance, self.share)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale.view(shape) + self.bias.view(shape)


class Flatten(nn.Module):
    """Flatten (N, C, H, W) to (N, H * W * C): Keras's order, in which the channel runs fastest."""

    def forward(self, input: Tensor) -> Tensor:
        return input.permute(0, 2, 3, 1).flatten(1)


class Adam(torch.optim.Adam):
    """Keras's Adam on torch's own fused kernel.

    Keras adds epsilon to sqrt(v) before the bias correction, torch after it, so each step hands torch
    epsilon / sqrt(1 - beta2^t). Keras on TensorFlow also rounds both betas to float32 in the bias
    correction (keras/src/optimizers/adam.py, update_step), which the learning rate makes up for.
    """

    def __init__(self, params: Any, lr: float = 1e-3, epsilon: float = 1e-7) -> None:
        # Two names hold what the user set, because torch's own `lr` and `eps` change with every step.
        super().__init__(params, lr=lr, eps=epsilon, fused=True)
        for group in self.param_groups:
            group.update(learning_rate=lr, epsilon=epsilon, steps=0)

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.param_groups:
            group["learning_rate"] = learning_rate

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["steps"] += 1
            t = group["steps"]
            exact = [1 - beta**t for beta in group["betas"]]
            rounded = [1 - float(np.float32(beta)) ** t for beta in group["betas"]]
            ratio = math.sqrt(rounded[1] / exact[1]) / (rounded[0] / exact[0])
            group["lr"] = group["learning_rate"] * ratio
            group["eps"] = group["epsilon"] / math.sqrt(exact[1])
        return super().step(closure)


class ReduceLROnPlateau(Callback):
    """Keras's ReduceLROnPlateau on val_loss: acts when `wait >= patience`, with an absolute threshold."""

    def __init__(
        self, patience: int, factor: float, min_delta: float, cooldown: int, min_learning_rate: float
    ) -> None:
        self.patience, self.factor, self.min_delta = patience, factor, min_delta
        self.cooldown, self.min_learning_rate = cooldown, min_learning_rate
        self.best, self.wait, self.cooldown_counter = math.inf, 0, 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        current = trainer.callback_metrics["val_loss"].item()
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if current + self.min_delta < self.best:
            self.best, self.wait = current, 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(trainer.optimizers[0])

    def _reduce(self, optimizer: Any) -> None:
        old = optimizer.param_groups[0]["learning_rate"]
        if old > self.min_learning_rate:
            optimizer.set_learning_rate(max(old * self.factor, self.min_learning_rate))
            self.cooldown_counter, self.wait = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.wait = state_dict["best"], state_dict["wait"]
        self.cooldown_counter = state_dict["cooldown_counter"]
