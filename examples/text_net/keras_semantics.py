"""Layers and optimizers that behave as Keras's do, where torch's own differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adam import adam
from torch.optim.optimizer import _default_to_fused_or_foreach


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


def _prepared(module: Any, input: Tensor, dropout: float, go_backwards: bool) -> Tensor:
    """A sequence (N, T, F) as a layer runs through it: Keras drops the same features at every step."""
    if dropout and module.training:
        input = input * F.dropout(torch.ones_like(input[:, :1]), dropout)
    return input.flip(1) if go_backwards else input


def _one_bias(module: Any) -> None:
    """Hold torch's second bias at zero: Keras has one, and two would learn twice as fast."""
    for name, parameter in module.named_parameters():
        if "bias_hh" in name:
            nn.init.zeros_(parameter).requires_grad_(False)


Parts = tuple[Tensor, Tensor | None]  # the recurrent kernel and torch's second bias


def _lstm_step(parts: Parts, new: Tensor, states: list[Tensor]) -> list[Tensor]:
    kernel, bias = parts
    i, f, g, o = (new + F.linear(states[0], kernel, bias)).chunk(4, dim=-1)
    cell = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(cell), cell]


def _gru_step(parts: Parts, new: Tensor, states: list[Tensor]) -> list[Tensor]:
    kernel, bias = parts
    (r, z, n), (hr, hz, hn) = (x.chunk(3, dim=-1) for x in (new, F.linear(states[0], kernel, bias)))
    update = torch.sigmoid(z + hz)
    return [(1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * states[0]]


def _rnn_step(parts: Parts, new: Tensor, states: list[Tensor]) -> list[Tensor]:
    kernel, bias = parts
    return [torch.tanh(new + F.linear(states[0], kernel, bias))]


STEPS = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN_TANH": _rnn_step}


def _masked(
    layer: Any, input: Tensor, mask: Tensor, suffix: str = ""
) -> tuple[Tensor, list[Tensor]]:
    """The outputs and the last states of a layer that keeps its state over steps where `mask` (N, T) is not
    set, as Keras does.
    """
    held = dict(layer.named_parameters())
    kernels = [held[f"weight_{part}_l0{suffix}"] for part in ("ih", "hh")]
    biases = [held.get(f"bias_{part}_l0{suffix}") for part in ("ih", "hh")]
    zeros, outputs = input.new_zeros(input.shape[0], layer.hidden_size), []
    states = [zeros] * (2 if layer.mode == "LSTM" else 1)
    projected = F.linear(input, kernels[0], biases[0])
    for step, kept in zip(projected.unbind(1), mask.bool().unbind(1), strict=True):
        new = STEPS[layer.mode]((kernels[1], biases[1]), step, states)
        states = [
            torch.where(kept[:, None], one, other) for one, other in zip(new, states, strict=True)
        ]
        outputs.append(states[0])
    return torch.stack(outputs, dim=1), states


def _merged(forward: Tensor, backward: Tensor, mode: str) -> Tensor:
    if mode == "concat":
        return torch.cat([forward, backward], dim=-1)
    if mode == "mul":
        return forward * backward
    return (forward + backward) / (2 if mode == "ave" else 1)


def _both(module: Any, layer: Any, input: Tensor, mask: Tensor | None) -> Tensor:
    """What Keras's Bidirectional gives: every step of both directions, or the last of each."""
    input = _prepared(module, input, module.input_dropout, False)
    if mask is None:
        outputs, states = layer(input)
        last = states[0] if isinstance(states, tuple) else states
        forward, backward = outputs.chunk(2, dim=-1)
    else:
        forward, one = _masked(layer, input, mask)
        backward, other = _masked(layer, input.flip(1), mask.flip(1), "_reverse")
        backward, last = backward.flip(1), (one[0], other[0])
    if not module.sequences:
        return _merged(last[0], last[1], module.merge_mode)
    if mask is not None:  # Keras gives zeros there, in both directions
        forward, backward = (outputs * mask[..., None] for outputs in (forward, backward))
    return _merged(forward, backward, module.merge_mode)


class BidirectionalLSTM(nn.Module):
    """Keras's Bidirectional(LSTM): (N, T, features) -> (N, 2 * units), or (N, T, 2 * units).

    merge_mode: concat, sum, ave or mul of the two directions.
    """

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        merge_mode: str = "concat",
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, units, bias=bias, batch_first=True, bidirectional=True)
        self.sequences, self.merge_mode, self.input_dropout = return_sequences, merge_mode, dropout
        _one_bias(self)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        return _both(self, self.lstm, input, mask)


def exponential_decay(
    step: int,
    initial_learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool = False,
) -> float:
    """Keras's ExponentialDecay."""
    share = step / decay_steps
    return initial_learning_rate * decay_rate ** (math.floor(share) if staircase else share)


@torch.no_grad()
def keras_gradients(module: nn.Module) -> Iterator[list[Tensor]]:
    """The gradients of each variable that Keras would have: a GRU's two biases are one, and what torch's
    attention packs into one is three.
    """
    for inner in module.modules():
        for name, parameter in inner.named_parameters(recurse=False):
            gradient = parameter.grad
            if gradient is None or (isinstance(inner, nn.GRU) and name.startswith("bias_hh")):
                continue
            if isinstance(inner, nn.MultiheadAttention) and name.startswith("in_proj"):
                yield from ([part] for part in gradient.chunk(3))
                continue
            variable = [gradient]
            if isinstance(inner, nn.GRU) and name.startswith("bias_ih"):
                other = getattr(inner, name.replace("_ih", "_hh")).grad
                variable += [] if other is None else [other]
            yield variable


def clip_gradients(
    module: nn.Module,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> None:
    """Clip as Keras does: `clipnorm` each gradient by its own norm, `global_clipnorm` all by their
    common one."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if clipnorm is not None:
        for variable in keras_gradients(module):
            norm = torch.stack([part.norm() for part in variable]).norm()
            for part in variable:
                part.mul_(clipnorm / norm.clamp(min=clipnorm))
    if global_clipnorm is not None and gradients:
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for gradient in gradients:
            gradient.mul_(global_clipnorm / norm.clamp(min=global_clipnorm))
    if clipvalue is not None:
        for gradient in gradients:
            gradient.clamp_(-clipvalue, clipvalue)
