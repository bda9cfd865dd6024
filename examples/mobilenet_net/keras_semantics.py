"""Layers and optimizers that behave as Keras's do, where torch's own differ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adam import adam
from torch.optim.optimizer import _default_to_fused_or_foreach


def _sum_over_processes(values: Tensor) -> Tensor:
    from torch.distributed.nn.functional import all_reduce  # its gradient is summed, too

    return all_reduce(values)


class BatchNorm(nn.BatchNorm2d):
    """Keras's BatchNormalization over the channel axis of (N, C) or (N, C, ...).

    Differs from torch's in momentum (Keras 0.99 is torch 0.01), epsilon (1e-3 for 1e-5), and in that the
    moving variance takes up the biased batch variance. A frozen layer (no parameter requires a gradient)
    keeps its statistics and uses them, as Keras's `trainable = False` does; so does a batch of no images.
    """

    def __init__(
        self,
        channels: int,
        epsilon: float = 1e-3,
        momentum: float = 0.99,
        scale: bool = True,
        center: bool = True,
    ) -> None:
        super().__init__(channels, eps=epsilon, momentum=1 - momentum)
        if not scale:
            self.register_parameter("weight", None)
        if not center:
            self.register_parameter("bias", None)
        self.synchronised = False  # over the processes of a distributed run

    def reset_parameters(self) -> None:
        """Statistics and, where there are any, weights as at first."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def _frozen(self) -> bool:
        own = [parameter for parameter in (self.weight, self.bias) if parameter is not None]
        return bool(own) and not any(parameter.requires_grad for parameter in own)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C) or (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        # In this order: of a model in evaluation, torch.fx can trace no more than the first.
        if not self.training or self._frozen or (input.numel() == 0 and not self.synchronised):
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        self._check_input_dim(input)
        if self.synchronised:
            return self._over_processes(input)
        # With momentum 1 these become the batch's own mean and unbiased variance. They are new tensors
        # because autograd holds what it is given: the buffers themselves must not change under it.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        output = torch.batch_norm(
            input,
            self.weight,
            self.bias,
            mean,
            variance,
            True,
            1.0,
            self.eps,
            torch.backends.cudnn.enabled,
        )
        count = input.numel() // input.shape[1]
        self._take_up(
            mean, variance * ((count - 1) / count) if count > 1 else torch.zeros_like(variance)
        )
        return output

    @torch.no_grad()
    def _take_up(self, mean: Tensor, biased: Tensor) -> None:
        """Let a batch's statistics into the moving ones."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if not self.track_running_stats:
            return
        share = self.momentum
        if (
            share is None
        ):  # torch's word for the plain mean of all batches: swa_utils.update_bn sets it
            assert self.num_batches_tracked is not None
            share = 1.0 / float(self.num_batches_tracked.add_(1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(biased.to(self.running_var.dtype), share)

    def _over_processes(self, input: Tensor) -> Tensor:
        """The batch's statistics are those of all processes; nn.SyncBatchNorm does that on CUDA alone."""
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        wide = input.to(torch.promote_types(input.dtype, torch.float32))  # a sum of halves is none
        count = torch.tensor(float(input.numel() // input.shape[1])).to(wide)
        sums = _sum_over_processes(torch.cat([wide.sum(axes), count[None]]))
        mean = sums[:-1] / sums[-1]
        centred = wide - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(axes)) / sums[-1]
        self._take_up(mean, variance)
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else self.weight * scale
        output = centred * scale.view(shape)
        return (output if self.bias is None else output + self.bias.view(shape)).to(input.dtype)


def as_tensorflow(constant: float) -> float:
    """A constant as Keras on TensorFlow takes it up: rounded to float32, in float64 too."""
    return float(np.float32(constant))


class Adam(torch.optim.Adam):
    """Keras's Adam on torch's own kernels, for torch's schedulers, scalers and checkpoints as they are.

    Arguments, groups and state are those of torch.optim.Adam, but for four things that are Keras's:

    - epsilon (`eps`, 1e-7 for 1e-8) is added to sqrt(v) before the bias correction, torch's after it;
    - both betas are rounded to float32 in the bias correction, as Keras on TensorFlow does, in float64 too
      (keras/src/optimizers/adam.py, update_step);
    - the bias correction counts the optimizer's steps, so a parameter that gets its first gradient late is
      corrected as the others are; a step at which no parameter has a gradient is none;
    - `weight_decay` is decoupled: w -= lr * weight_decay * w before the step.

    Raises ValueError for `capturable`: a CUDA graph would freeze numbers that change with every step.
    """

    steps_as_keras = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        if capturable:
            raise ValueError(
                "capturable: Keras's Adam takes other numbers at each step; a graph repeats its own"
            )
        self._forget_count()
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
        # A GradScaler then leaves out the steps with infinite gradients, which this class must not count.
        self._step_supports_amp_scaling = False

    @property
    def iterations(self) -> int:
        """Steps taken, as Keras counts them: the optimizer's own, not each parameter's."""
        if not self.state:  # new, or its user began it anew
            self._iterations = 0
        if self._iterations is None:
            steps = [int(state["step"]) for state in self.state.values() if "step" in state]
            self._iterations = max(steps, default=0)
        return self._iterations

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does; raises ValueError for Keras's names, which torch would pass over."""
        _refuse_names_of_keras(param_group)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["fused"] is None and group["foreach"] is None:
            fused, _ = _default_to_fused_or_foreach(
                group["params"], group["differentiable"], use_fused=True
            )
            group["fused"] = fused or None  # None leaves it to torch

    def step(self, closure: Any = None) -> Any:
        """Take a step; returns what `closure`, which evaluates the model anew, returns."""
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "Keras's Adam cannot be captured: a graph repeats the numbers of one step"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        t, before, stepped = self.iterations + 1, self._stepped, set()
        self._stepped = set()  # should this step fail, no parameter's count is sure
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            for group in self.param_groups:
                stepped.update(self._step_group(group, t, before))
        if stepped:
            self._iterations, self._stepped = t, stepped
        return loss

    def _step_group(self, group: dict[str, Any], t: int, before: set[Tensor]) -> list[Tensor]:
        parameters: list[Tensor] = []
        lists: list[list[Tensor]] = [[] for _ in range(5)]  # gradients, m, v, largest v, steps
        has_complex = self._init_group(group, parameters, *lists)
        for parameter, step in zip(parameters, lists[-1], strict=True):
            if parameter not in before:  # new, or without a gradient for a while
                step.fill_(t - 1)
        factor, eps = self._as_torch(group, t)
        decay, (beta1, beta2) = group["weight_decay"], map(float, group["betas"])
        if group["decoupled_weight_decay"]:
            # torch multiplies it by the learning rate that it is handed
            decay = as_tensorflow(decay) / factor
        adam(
            parameters,
            *lists,
            amsgrad=group["amsgrad"],
            has_complex=has_complex,
            beta1=beta1,
            beta2=beta2,
            lr=_number(group["lr"]) * factor,
            weight_decay=decay,
            eps=eps,
            maximize=group["maximize"],
            foreach=group["foreach"],
            capturable=group["capturable"],
            differentiable=group["differentiable"],
            fused=group["fused"],
            decoupled_weight_decay=group["decoupled_weight_decay"],
        )
        return parameters

    def _as_torch(self, group: dict[str, Any], t: int) -> tuple[float, float]:
        """The factor of the learning rate, and the epsilon, with which torch's step t (from 1) is Keras's."""
        exact = [1 - float(beta) ** t for beta in group["betas"]]
        rounded = [1 - as_tensorflow(beta) ** t for beta in group["betas"]]
        factor = math.sqrt(rounded[1] / exact[1]) / (rounded[0] / exact[0])
        return factor, group["eps"] / math.sqrt(exact[1])

    def _forget_count(self) -> None:
        """Read the steps taken from the state when they are next asked for."""
        self._iterations: int | None = None
        self._stepped: set[Tensor] = set()  # the parameters of the last step: their count is right

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a state: loaded, unpickled or copied."""
        super().__setstate__(state)
        self._forget_count()
        for group in (
            self.param_groups
        ):  # until 2026-11 checkpoints kept the user's numbers under other names
            if "learning_rate" in group:
                group.update(lr=group.pop("learning_rate"), eps=group.pop("epsilon"))
                del group["steps"]


def _refuse_names_of_keras(group: dict[str, Any]) -> None:
    for torchs, keras in (("lr", "learning_rate"), ("eps", "epsilon")):
        if keras in group:
            raise ValueError(f"a parameter group has torch's names: {torchs}, not {keras}")


def _number(rate: float | Tensor) -> float | Tensor:
    """A learning rate as a float where reading it waits for no device, and nothing is to be derived."""
    if isinstance(rate, Tensor) and rate.device.type == "cpu" and not rate.requires_grad:
        return rate.item()
    return rate


class GlobalAveragePooling(nn.Module):
    """The mean over the axes of space: `dim`, one or several."""

    def __init__(self, dim: int | tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dim, self.keepdim = dim, keepdim

    def forward(self, input: Tensor) -> Tensor:
        return input.mean(self.dim, keepdim=self.keepdim)
