"""Keras's optimizers beside Adam, by the formulas of keras/src/optimizers, on torch's parameter groups.

`weight_decay` is decoupled in all of them: w -= lr * weight_decay * w before the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _KerasOptimizer(torch.optim.Optimizer):
    """Runs `update` over the parameters that have a gradient; counts steps as Keras does, for all alike.

    What it keeps of a parameter goes by Keras's names.
    """

    steps_as_keras = True

    def __init__(self, params: Any, lr: float, weight_decay: float, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "iterations": 0, **options})

    def update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; returns what `closure`, which evaluates the model anew, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["iterations"] += 1
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if group["weight_decay"]:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                self.update(weight, weight.grad, self.state[weight], group)
        return loss


def _held(state: dict[str, Tensor], name: str, like: Tensor, value: float = 0.0) -> Tensor:
    """A moment of a parameter; at first each element is `value`."""
    if name not in state:
        state[name] = torch.full_like(like, value, memory_format=torch.preserve_format)
    return state[name]


class RMSprop(_KerasOptimizer):
    """Keras's RMSprop: epsilon stands inside the root, torch's outside."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        rho: float = 0.9,
        momentum: float = 0.0,
        eps: float = 1e-7,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay, rho=rho, momentum=momentum, eps=eps, centered=centered)

    def update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        rho = group["rho"]
        velocity = _held(state, "velocities", weight)
        velocity.mul_(rho).add_((1 - rho) * gradient.square())
        denominator = velocity + group["eps"]
        if group["centered"]:
            average = _held(state, "average_gradients", weight)
            average.mul_(rho).add_((1 - rho) * gradient)
            denominator = denominator - average.square()
        increment = group["lr"] * gradient / denominator.sqrt()
        if group["momentum"] > 0:
            increment = _held(state, "momentums", weight).mul_(group["momentum"]).add_(increment)
        weight.sub_(increment)


class Adagrad(_KerasOptimizer):
    """Keras's Adagrad: the accumulator starts at 0.1, and epsilon stands inside the root."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        initial_accumulator_value: float = 0.1,
        eps: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"initial_accumulator_value": initial_accumulator_value, "eps": eps}
        super().__init__(params, lr, weight_decay, **options)

    def update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        accumulator = _held(state, "accumulators", weight, group["initial_accumulator_value"])
        accumulator.add_(gradient.square())
        weight.sub_(group["lr"] * gradient / (accumulator + group["eps"]).sqrt())


class Adadelta(_KerasOptimizer):
    """Keras's Adadelta."""

    def __init__(
        self, params: Any, lr: float = 1e-3, rho: float = 0.95, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, weight_decay, rho=rho, eps=eps)

    def update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        rho, eps = group["rho"], group["eps"]
        squares, changes = (
            _held(state, "accumulated_grads", weight),
            _held(state, "accumulated_delta_vars", weight),
        )
        squares.mul_(rho).add_((1 - rho) * gradient.square())
        change = -(changes + eps).sqrt() * gradient / (squares + eps).sqrt()
        changes.mul_(rho).add_((1 - rho) * change.square())
        weight.add_(group["lr"] * change)


class Adamax(_KerasOptimizer):
    """Keras's Adamax: epsilon is added to the largest gradient, not compared with it."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps)

    def update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        m, u = _held(state, "momentums", weight), _held(state, "norms", weight)
        m.add_((gradient - m) * (1 - beta1))
        u.copy_(torch.maximum(beta2 * u, gradient.abs()))
        # Keras on TensorFlow takes the beta through float32, in float64 too.
        power = float(torch.tensor(beta1)) ** group["iterations"]
        weight.sub_(group["lr"] * m / ((1 - power) * (u + group["eps"])))


class Nadam(_KerasOptimizer):
    """Keras's Nadam."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps)

    def update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        # Keras on TensorFlow takes these constants through float32, in float64 too.
        beta1, beta2, decay = (float(torch.tensor(value)) for value in (*group["betas"], 0.96))
        t = group["iterations"]
        now, following = (beta1 * (1 - 0.5 * decay**step) for step in (t, t + 1))
        product = _held(state, "u_product", weight.new_zeros(()), 1.0)
        product.mul_(now)
        m, v = _held(state, "momentums", weight), _held(state, "velocities", weight)
        m.add_((gradient - m) * (1 - beta1))
        v.add_((gradient.square() - v) * (1 - beta2))
        m_hat = following * m / (1 - product * following) + (1 - now) * gradient / (1 - product)
        weight.sub_(m_hat * group["lr"] / ((v / (1 - beta2**t)).sqrt() + group["eps"]))


class Lion(_KerasOptimizer):
    """Keras's Lion."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay, betas=betas)

    def update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        # Keras on TensorFlow takes the betas through float32, in float64 too.
        beta1, beta2 = (float(torch.tensor(beta)) for beta in group["betas"])
        m = _held(state, "momentums", weight)
        weight.sub_(group["lr"] * (m * beta1 + gradient * (1 - beta1)).sign())
        m.mul_(beta2).add_(gradient * (1 - beta2))
