"""Optimizers that take Keras's steps, for torch's schedulers, scalers and checkpoints as they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.optimizer import _default_to_fused_or_foreach
from torch.optim.sgd import sgd


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
            fused, _ = _default_to_fused_or_foreach(group["params"], group["differentiable"], use_fused=True)
            group["fused"] = fused or None  # None leaves it to torch

    def step(self, closure: Any = None) -> Any:
        """Take a step; returns what `closure`, which evaluates the model anew, returns."""
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("Keras's Adam cannot be captured: a graph repeats the numbers of one step")
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
        for group in self.param_groups:  # until 2026-11 checkpoints kept the user's numbers under other names
            if "learning_rate" in group:
                group.update(lr=group.pop("learning_rate"), eps=group.pop("epsilon"))
                del group["steps"]


class AdamW(Adam):
    """Keras's AdamW: its Adam with a weight decay of 0.004 where none is named, which is always decoupled.

    Arguments, groups and state are those of torch.optim.AdamW. As in Keras every parameter decays, biases and
    BatchNorm's scales among them.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        weight_decay: float = 4e-3,
        amsgrad: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **more)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # torch.optim.Adam's state says otherwise
            group["decoupled_weight_decay"] = True


class SGD(torch.optim.SGD):
    """Keras's SGD on torch's own kernels, for torch's schedulers, scalers and checkpoints as they are.

    Keras takes the learning rate up in the velocity (keras/src/optimizers/sgd.py, update_step):
    m = momentum * m - lr * g; then w += m, or with `nesterov` w += momentum * m - lr * g. torch keeps
    b = momentum * b + g and multiplies it by the lr of the step. At a constant lr the two are the same,
    m = -lr * b; after a change Keras's velocity keeps its length, where torch's is scaled with the lr. So the
    buffers of a group are torch's, in units of the lr that they were last stepped with (`buffer_lr`, in the
    group), and are converted when it changes: a state goes to torch.optim.SGD and comes from it.

    Three more things are Keras's: `weight_decay` is decoupled (w -= lr * weight_decay * w before the step);
    it and the momentum are rounded to float32, as Keras on TensorFlow does; and there is no dampening.
    """

    steps_as_keras = True
    rounded = staticmethod(as_tensorflow)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )
        # A GradScaler then leaves out the steps with infinite gradients, whose weights would decay here.
        self._step_supports_amp_scaling = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does; raises ValueError for Keras's names, which torch would pass over."""
        _refuse_names_of_keras(param_group)
        super().add_param_group(param_group)
        self.param_groups[-1].setdefault("buffer_lr", None)

    def step(self, closure: Any = None) -> Any:
        """Take a step; returns what `closure`, which evaluates the model anew, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            for group in self.param_groups:
                self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        buffers: list[Tensor | None] = []
        sparse = self._init_group(group, parameters, gradients, buffers)
        if not parameters:
            return
        lr = _number(group["lr"])
        if group["weight_decay"]:
            for parameter in parameters:
                parameter.mul_(1 - lr * as_tensorflow(group["weight_decay"]))
        momentum = self.rounded(group["momentum"])
        if momentum:
            lr, gradients = self._in_units_of_lr(group, float(lr), gradients)
        sgd(
            parameters,
            gradients,
            buffers,
            has_sparse_grad=sparse,
            foreach=group["foreach"],
            fused=group["fused"],
            weight_decay=0.0,
            momentum=momentum,
            lr=lr,
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )
        for parameter, buffer in zip(parameters, buffers, strict=bool(momentum)):
            self.state[parameter]["momentum_buffer"] = buffer

    def _in_units_of_lr(
        self, group: dict[str, Any], lr: float, gradients: list[Tensor]
    ) -> tuple[float, list[Tensor]]:
        """Turn a group's buffers into units of `lr`; returns the lr and the gradients for torch's step."""
        unit = group["buffer_lr"]
        if unit and not lr:  # no unit: the velocity runs on, and the gradient adds nothing to it
            return unit, [torch.zeros_like(gradient) for gradient in gradients]
        if unit is not None and unit != lr:
            for parameter in group["params"]:  # of those without a gradient now, too
                if (buffer := self.state.get(parameter, {}).get("momentum_buffer")) is not None:
                    buffer.mul_(unit / lr if lr else 0.0)
        group["buffer_lr"] = lr
        return lr, gradients

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a state: loaded, unpickled or copied."""
        super().__setstate__(state)
        for group in self.param_groups:  # torch's own buffers are in units of its lr
            group.setdefault("buffer_lr", float(group["lr"]))


def _refuse_names_of_keras(group: dict[str, Any]) -> None:
    for torchs, keras in (("lr", "learning_rate"), ("eps", "epsilon")):
        if keras in group:
            raise ValueError(f"a parameter group has torch's names: {torchs}, not {keras}")


def _number(rate: float | Tensor) -> float | Tensor:
    """A learning rate as a float where reading it waits for no device, and nothing is to be derived."""
    if isinstance(rate, Tensor) and rate.device.type == "cpu" and not rate.requires_grad:
        return rate.item()
    return rate
