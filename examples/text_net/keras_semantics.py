"""Layers and optimizers that behave as Keras's do, where torch's own differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
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


class _Watching(Callback):
    """Looks at a metric once an epoch, after the validation, and passes over epochs that had none."""

    def __init__(self, monitor: str, mode: str) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"{type(self).__name__}: mode {mode} must be min or max")
        self.monitor, self.sign = monitor, 1.0 if mode == "min" else -1.0
        self._validates = self._validated = (
            False  # the metric comes from validation; and it came just now
        )

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
        super().__init__(monitor, mode)
        self.patience, self.factor, self.min_delta = patience, factor, abs(min_delta)
        self.cooldown, self.min_learning_rate = cooldown, min_learning_rate
        self.best, self.wait, self.cooldown_counter = math.inf * self.sign, 0, 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        current = self.current(trainer)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.sign * current + self.min_delta < self.sign * self.best:
            self.best, self.wait = current, 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(
                    [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
                )

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
        super().__init__(monitor, mode)
        self.patience, self.min_delta, self.baseline = patience, abs(min_delta), baseline
        self.restore, self.start_from_epoch = restore_best_weights, start_from_epoch
        self.best: float | None = None
        self.wait = 0
        self.best_weights: dict[str, Tensor] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        current, epoch = self.current(trainer), trainer.current_epoch
        if current is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        better = self.best is None or self._improves(current, self.best)
        if self.restore and (better or self.best_weights is None):
            self.best_weights = {
                name: value.clone() for name, value in pl_module.state_dict().items()
            }
        if better:
            self.best = current
            if self.baseline is None or self._improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            trainer.should_stop = True

    def _improves(self, value: float, other: float) -> bool:
        return self.sign * value + self.min_delta < self.sign * other

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.best_weights is not None:
            pl_module.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "best_weights": self.best_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.wait = state_dict["best"], state_dict["wait"]
        self.best_weights = state_dict["best_weights"]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda input: input,
    "hard_sigmoid": F.hardsigmoid,
    **{
        name: getattr(F, name)
        for name in ("tanh", "sigmoid", "relu", "elu", "selu", "softplus", "softsign")
    },
    "silu": F.silu,
}


Outputs = tuple[Tensor, list[Tensor]]  # of every step (N, T, units), and the states after the last


def _linear(
    input: Tensor, kernel: Tensor, bias: Tensor | None, masks: Sequence[Tensor] | None
) -> Tensor:
    """F.linear, its input dropped by a mask for each gate where there are masks."""
    if masks is None:
        return F.linear(input, kernel, bias)
    parts = zip(masks, kernel.chunk(len(masks)), strict=True)
    output = torch.cat([F.linear(input * mask, part) for mask, part in parts], dim=-1)
    return output if bias is None else output + bias


class _Recurrent(nn.Module):
    """A recurrent layer of Keras's, its weights in torch's layer of the same cell.

    With anything that torch's layer has not (a mask, recurrent dropout, other activations, a GRU's reset
    before), the steps are taken here.
    """

    cell: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        return_state: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        go_backwards: bool = False,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        reset_after: bool = True,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.layer = self.cell(
            features, units, bias=bias, batch_first=True, bidirectional=bidirectional
        )
        self.sequences, self.state = return_sequences, return_state
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.go_backwards, self.reset_after = go_backwards, reset_after
        self.activation, self.recurrent_activation = activation, recurrent_activation
        if self.cell is not nn.GRU or not reset_after:
            for name, parameter in self.layer.named_parameters():
                if "bias_hh" in name:  # Keras has one bias, and two would learn twice as fast
                    nn.init.zeros_(parameter).requires_grad_(False)

    @property
    def gates(self) -> int:
        return {nn.LSTM: 4, nn.GRU: 3}.get(self.cell, 1)

    @property
    def steps_as_torch(self) -> bool:
        """Whether torch's own layer takes the same steps, but for masks."""
        usual = (
            self.activation == "tanh"
            and self.recurrent_activation == "sigmoid"
            and self.reset_after
        )
        return usual and not (self.recurrent_dropout and self.training)

    def forward(
        self, input: Tensor, mask: Tensor | None = None, state: Sequence[Tensor] = ()
    ) -> Tensor:
        if self.go_backwards:
            input, mask = input.flip(1), mask if mask is None else mask.flip(1)
        outputs, states = self.run(input, mask, state)
        output = outputs if self.sequences else states[0]
        return (output, *states) if self.state else output  # type: ignore[return-value]

    def run(
        self, input: Tensor, mask: Tensor | None, state: Sequence[Tensor] = (), way: str = ""
    ) -> Outputs:
        """The outputs and states of one way, `""` or `"_reverse"`, over (N, T, features).

        mask: (N, T); where it is not set, states stay as they are. state: the first, zeros unless given.
        """
        dropped = self.recurrent_dropout if self.training else 0.0
        gates = self.gates if dropped else 1  # Keras draws for each gate then
        masks = None
        if self.dropout and self.training:  # the same features at every step
            masks = [F.dropout(torch.ones_like(input[:, :1]), self.dropout) for _ in range(gates)]
        if mask is None and self.steps_as_torch and not self.layer.bidirectional:
            return self._by_torch(input if masks is None else input * masks[0], state)
        weights = dict(self.layer.named_parameters())
        kernel, bias = weights[f"weight_ih_l0{way}"], weights.get(f"bias_ih_l0{way}")
        projected = _linear(input, kernel, bias, masks)
        kernel, bias = weights[f"weight_hh_l0{way}"], weights.get(f"bias_hh_l0{way}")
        zeros = input.new_zeros(input.shape[0], self.layer.hidden_size)
        states = list(state) or [zeros] * (2 if self.cell is nn.LSTM else 1)
        masks = (
            [F.dropout(torch.ones_like(zeros), dropped) for _ in range(gates)] if dropped else None
        )
        outputs = []
        for step, new in enumerate(projected.unbind(1)):
            after = self._step(new, states, kernel, bias, masks)
            if mask is not None:
                kept = mask[:, step, None].bool()
                after = [
                    torch.where(kept, new, old) for new, old in zip(after, states, strict=True)
                ]
            states = after
            outputs.append(states[0])
        return torch.stack(outputs, dim=1), states

    def _by_torch(self, input: Tensor, state: Sequence[Tensor]) -> Outputs:
        begin: Any = tuple(part[None] for part in state) or None
        outputs, end = self.layer(
            input, begin if self.cell is nn.LSTM or begin is None else begin[0]
        )
        return outputs, [part[0] for part in (end if isinstance(end, tuple) else (end,))]

    def _step(
        self,
        new: Tensor,
        states: list[Tensor],
        kernel: Tensor,
        bias: Tensor | None,
        masks: Sequence[Tensor] | None,
    ) -> list[Tensor]:
        """The states (N, units) after one step, `new` being its input times the kernel."""
        act, gate = ACTIVATIONS[self.activation], ACTIVATIONS[self.recurrent_activation]
        hidden = states[0]
        if self.cell is nn.GRU and not self.reset_after:
            r, z, n = new.chunk(3, dim=-1)
            mask_r, mask_z, mask_n = masks or (1, 1, 1)
            kernel_r, kernel_z, kernel_n = kernel.chunk(3)
            reset = gate(r + F.linear(hidden * mask_r, kernel_r))
            update = gate(z + F.linear(hidden * mask_z, kernel_z))
            candidate = act(n + F.linear(reset * hidden * mask_n, kernel_n))
            return [(1 - update) * candidate + update * hidden]
        recurrent = _linear(hidden, kernel, bias, masks)
        if self.cell is nn.GRU:
            (r, z, n), (hr, hz, hn) = new.chunk(3, dim=-1), recurrent.chunk(3, dim=-1)
            update = gate(z + hz)
            return [(1 - update) * act(n + gate(r + hr) * hn) + update * hidden]
        if self.cell is nn.LSTM:
            i, f, g, o = (new + recurrent).chunk(4, dim=-1)
            carry = gate(f) * states[1] + gate(i) * act(g)
            return [gate(o) * act(carry), carry]
        return [act(new + recurrent)]


class _Bidirectional(_Recurrent):
    """Keras's Bidirectional: (N, T, features) -> (N, 2 * units), or (N, T, 2 * units).

    merge_mode: concat, sum, ave or mul of the two directions. The other arguments are those of LSTM.
    """

    def __init__(
        self, features: int, units: int, merge_mode: str = "concat", **settings: bool | float
    ) -> None:
        super().__init__(features, units, bidirectional=True, **settings)  # type: ignore[arg-type]
        self.merge_mode = merge_mode

    def forward(
        self, input: Tensor, mask: Tensor | None = None, state: Sequence[Tensor] = ()
    ) -> Tensor:
        if mask is None and self.steps_as_torch and not (self.dropout and self.training):
            outputs, states = self.layer(input)
            forward, backward = outputs.chunk(2, dim=-1)
            ahead, behind = states[0] if isinstance(states, tuple) else states
        else:
            forward, (ahead, *_) = self.run(input, mask)
            backward, (behind, *_) = self.run(
                input.flip(1), None if mask is None else mask.flip(1), way="_reverse"
            )
            backward = backward.flip(1)
        if not self.sequences:
            return self._merged(ahead, behind)
        if mask is not None:  # Keras gives zeros there, in both directions
            forward, backward = forward * mask[..., None], backward * mask[..., None]
        return self._merged(forward, backward)

    def _merged(self, forward: Tensor, backward: Tensor) -> Tensor:
        if self.merge_mode == "concat":
            return torch.cat([forward, backward], dim=-1)
        if self.merge_mode == "mul":
            return forward * backward
        return (forward + backward) / (2 if self.merge_mode == "ave" else 1)


class BidirectionalLSTM(_Bidirectional):
    """Keras's Bidirectional(LSTM); merge_mode is one of concat, sum, ave and mul."""

    cell = nn.LSTM


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
