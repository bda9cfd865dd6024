"""How a user's model is trained: its optimizer, in words that both sides know, and what it keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn.utils import clip_grad
from torch.optim.lr_scheduler import ReduceLROnPlateau

from experiment.protocols.faults import told
from experiment.protocols.trace import Arrays, TraceError
from lightning_impl import keras_semantics
from lightning_impl.layers.layer_type import Weights
from lightning_impl.optimizers import slots as known_slots
from lightning_impl.semantics.training import clip_gradients
from lightning_impl.trace.losses import is_lightning, overrides

# The families that `parity` knows the steps of, by torch's classes; AdamW is an Adam.
FAMILIES: dict[type, str] = {
    optim.Adam: "Adam",
    optim.SGD: "SGD",
    optim.RMSprop: "RMSprop",
    optim.Adagrad: "Adagrad",
    optim.Adadelta: "Adadelta",
    optim.Adamax: "Adamax",
    optim.NAdam: "Nadam",
}
SETTINGS = {
    "eps": "epsilon",
    "amsgrad": "amsgrad",
    "momentum": "momentum",
    "nesterov": "nesterov",
    "dampening": "dampening",
    "alpha": "rho",
    "rho": "rho",
    "centered": "centered",
    "initial_accumulator_value": "initial_accumulator_value",
    "lr_decay": "lr_decay",
    "momentum_decay": "momentum_decay",
    "maximize": "maximize",
}
WRITTEN = (*FAMILIES.values(), "Lion")  # what packages bring of their own, by the names of their classes
State = Mapping[str, Any]

# What an optimizer keeps of every weight beside `lightning_impl.optimizers.slots`: Keras's name, and Keras's
# form of it from torch's state and group.
SLOTS: dict[str, dict[str, tuple[str, Callable[[Tensor, State], Tensor]]]] = {
    "Adam": {"velocity_hats": ("max_exp_avg_sq", lambda kept, group: kept)},
    "Adamax": {
        "momentums": ("exp_avg", lambda kept, group: kept),
        "norms": ("exp_inf", lambda kept, group: kept - group["eps"]),  # torch adds it within, Keras after
    },
    "RMSprop": {
        "velocities": ("square_avg", lambda kept, group: kept),
        "momentums": ("momentum_buffer", lambda kept, group: group["lr"] * kept),
        "average_gradients": ("grad_avg", lambda kept, group: kept),
    },
    "Adagrad": {"accumulators": ("sum", lambda kept, group: kept)},
    "Adadelta": {
        "accumulated_grads": ("square_avg", lambda kept, group: kept),
        "accumulated_delta_vars": ("acc_delta", lambda kept, group: kept),
    },
    "Lion": {"momentums": ("exp_avg", lambda kept, group: kept)},
}
MARGIN = 1e-6  # of torch's clip_grad_norm_
SAMPLED = 32  # elements of each parameter whose way through the steps is kept


@dataclass
class Training:
    """A user's optimizer, what changes its learning rate, and what else acts on a step.

    schedulers: as Lightning takes them, each with `scheduler`, `interval` and `frequency`. clipping: the
    norm or the value that gradients are clipped to, in Keras's words. given: the optimizer is the user's.
    """

    model: nn.Module
    optimizer: Any
    schedulers: Sequence[Mapping[str, Any]] = ()
    clipping: Mapping[str, float] = field(default_factory=dict)
    accumulate: int = 1
    notes: list[str] = field(default_factory=list)
    given: bool = True
    _taken: int = 0

    def step(self) -> None:
        """Clip the gradients, step, and clear them; then let the learning rate change where it does so by
        steps. Where gradients are accumulated only every so many calls step.
        """
        self._taken += 1
        if self._taken % self.accumulate:
            return
        self.optimizer.step()
        for entry in self.schedulers:
            steps = self._taken // self.accumulate
            if entry.get("interval") == "step" and steps % int(entry.get("frequency", 1)) == 0:
                entry["scheduler"].step()

    @property
    def begins(self) -> bool:
        """The next gradient is the first that a step takes."""
        return self._taken % self.accumulate == 0

    def clip(self) -> None:
        """Clip the gradients as the module does, at a step."""
        if (self._taken + 1) % self.accumulate:
            return
        if self.accumulate > 1:
            for parameter in self._parameters():
                if parameter.grad is not None:
                    parameter.grad /= self.accumulate
        if overrides(self.model, "configure_gradient_clipping"):
            with _clipping_by_itself(self.model):
                self.model.configure_gradient_clipping(self.optimizer, None, None)  # type: ignore[operator]
        elif not self.given:
            clip_gradients(self.model, **self.clipping)
        elif "clipvalue" in self.clipping:
            nn.utils.clip_grad_value_(self._parameters(), self.clipping["clipvalue"])
        elif "global_clipnorm" in self.clipping:
            nn.utils.clip_grad_norm_(self._parameters(), self.clipping["global_clipnorm"])

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def users_training(model: nn.Module, learning_rate: float) -> Training:
    """What a LightningModule configures, else Keras's Adam at a learning rate; raises TraceError.

    Gradients are clipped and accumulated by the Trainer's flags, which no module holds: a module that has
    `gradient_clip_val`, `gradient_clip_algorithm` or `accumulate_grad_batches`, itself or among its
    hyperparameters, is trained by these.
    """
    optimizers, schedulers = configured(model)
    if not optimizers:
        parameters = [p for p in model.parameters() if p.requires_grad]
        stand_in = keras_semantics.Adam(parameters, lr=learning_rate) if parameters else None
        return Training(model, stand_in, given=False)
    training = Training(model, optimizers[0], schedulers)
    if len(optimizers) > 1:
        training.notes.append(f"torch's module configures {len(optimizers)} optimizers: the first one steps")
    if not getattr(model, "automatic_optimization", True):
        training.notes.append(
            "torch's module optimizes manually: its training_step is not run, its optimizer steps "
            "at every batch"
        )
    value, algorithm = _setting(model, "gradient_clip_val"), _setting(model, "gradient_clip_algorithm")
    if value:
        training.clipping = {"clipvalue" if algorithm == "value" else "global_clipnorm": float(value)}
    training.accumulate = int(_setting(model, "accumulate_grad_batches") or 1)
    if not value and not overrides(model, "configure_gradient_clipping"):
        training.notes.append(
            "the Trainer's flags (gradient_clip_val, accumulate_grad_batches) stand outside of torch's "
            "module and were not seen"
        )
    for entry in schedulers:
        name = type(entry["scheduler"]).__name__
        if isinstance(entry["scheduler"], ReduceLROnPlateau) or entry.get("interval", "epoch") != "step":
            training.notes.append(f"torch's {name} acts once an epoch, which the traced steps do not reach")
    return training


def configured(model: nn.Module) -> tuple[list[Any], list[dict[str, Any]]]:
    """The optimizers and the schedulers that configure_optimizers gives, in any of its forms.

    A scheduler comes as a dictionary, with Lightning's defaults. Raises TraceError where it fails.
    """
    configure: Any = getattr(model, "configure_optimizers", None)
    try:
        returned: Any = configure() if is_lightning(model) else None
    except Exception as error:  # whatever the user's function raises
        way_out = ": give the numbers that it asks the Trainer for" if "Trainer" in str(error) else ""
        raise TraceError(f"configure_optimizers fails: {told(error)}{way_out}") from error
    schedulers: Any = []
    if isinstance(returned, tuple | list) and returned and isinstance(returned[0], tuple | list):
        returned, schedulers = returned[0], returned[1]  # lists of both
    entries = list(returned) if isinstance(returned, tuple | list) else [returned]
    optimizers = []
    for entry in entries:
        if isinstance(entry, Mapping):
            schedulers = [*schedulers, *([entry["lr_scheduler"]] if entry.get("lr_scheduler") else [])]
            entry = entry["optimizer"]
        optimizers += [] if entry is None else [entry]
    schedulers = schedulers if isinstance(schedulers, tuple | list) else [schedulers]
    default = {"interval": "epoch", "frequency": 1}
    return optimizers, [
        {**default, **one} if isinstance(one, Mapping) else {**default, "scheduler": one}
        for one in schedulers
    ]


def facts(training: Training, weights: Mapping[str, Weights]) -> dict[str, Any]:
    """The optimizer for structure.json: its class, family, settings and those of some weights.

    family: "" for one that Keras has no twin of. form: keras for one that takes Keras's steps. overrides:
    the settings of a weight, `layer/weight`, that are others, as those of a further parameter group.
    """
    optimizer = training.optimizer
    if optimizer is None:
        return {}
    groups = [_settings(optimizer, group) for group in optimizer.param_groups]
    largest = max(
        groups, key=lambda one: sum(p.numel() for p in optimizer.param_groups[groups.index(one)]["params"])
    )
    group_of = {
        id(p): settings
        for settings, group in zip(groups, optimizer.param_groups, strict=True)
        for p in group["params"]
    }
    overrides = {}
    for key, parameters in _parameters(weights).items():
        settings = group_of.get(id(parameters[0]))
        if settings is None and parameters[0].requires_grad:
            overrides[key] = {"learning_rate_factor": 0.0}  # no group has it: it never moves
        elif settings is not None and settings != largest:
            overrides[key] = {k: v for k, v in settings.items() if v != largest.get(k)}
            if (mine := settings.get("learning_rate")) != (main := largest.get("learning_rate")) and main:
                overrides[key] = {**overrides[key], "learning_rate_factor": mine / main}
                del overrides[key]["learning_rate"]
    main = {name: value for name, value in largest.items() if name != "learning_rate"}
    if training.accumulate > 1:
        main["gradient_accumulation_steps"] = training.accumulate
    schedule = {}
    if training.schedulers:
        entry = training.schedulers[0]
        schedule = {"class": type(entry["scheduler"]).__name__, "interval": entry["interval"]}
    return {
        "class": type(optimizer).__name__,
        "family": family(optimizer),
        "form": "keras" if _steps_as_keras(optimizer) else "torch",
        "settings": {**main, **training.clipping},
        "overrides": overrides,
        "schedule": schedule,
    }


def family(optimizer: Any) -> str:
    """The family of an optimizer, "" for one that Keras has no twin of."""
    stock = next((name for cls, name in FAMILIES.items() if isinstance(optimizer, cls)), "")
    own = type(optimizer).__name__
    return stock or (own if own == "Lion" or (_steps_as_keras(optimizer) and own in WRITTEN) else "")


def slots(optimizer: Any) -> dict[str, dict[Tensor, Tensor]]:
    """What the optimizer keeps, by Keras's name and parameter, in Keras's form."""
    found = known_slots(optimizer)
    if not isinstance(optimizer, tuple(FAMILIES)) and _steps_as_keras(optimizer):  # which has Keras's names
        kept = {name for state in optimizer.state.values() for name in state}
        return {
            name: found
            for name in sorted(kept)
            if (found := {p: s[name] for p, s in optimizer.state.items() if s[name].shape == p.shape})
        }
    for name, (key, form) in SLOTS.get(family(optimizer), {}).items():
        found[name] = {
            parameter: form(kept, group)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if (kept := optimizer.state.get(parameter, {}).get(key)) is not None
        }
    return {name: values for name, values in found.items() if values}


class Path:
    """Some elements of every trained parameter on their way through the steps, with their gradients.

    Arrays: path/names (P,) of the parameters as `layer/weight`, path/values (P, steps + 1, E), path/raw and
    path/gradients (P, steps, E) before and after clipping, path/norms (P, steps) of the whole raw gradients,
    path/rates (steps,) the learning rates of the first group.
    """

    def __init__(self, weights: Mapping[str, Weights], optimizer: Any) -> None:
        trained = {
            key: parameters[0]
            for key, parameters in _parameters(weights).items()
            if parameters[0].requires_grad
        }
        unique = {id(parameter): (key, parameter) for key, parameter in reversed(trained.items())}
        self._parameters = [(k, p) for k, p in reversed(unique.values()) if p.is_leaf]
        self._optimizer = optimizer
        self._places = [
            torch.linspace(0, p.numel() - 1, SAMPLED).long().to(p.device) for _, p in self._parameters
        ]
        self._values = [self._sampled(lambda p: p)]
        self._raw: list[np.ndarray] = []
        self._gradients: list[np.ndarray] = []
        self._norms: list[list[float]] = []
        self._rates: list[float] = []
        self._held: list[Tensor | None] = []

    def gradients(self, begins: bool) -> None:
        """Take up the gradients as they were computed; begins: none stood there before them."""
        before = self._held if not begins else [None] * len(self._parameters)
        now = [None if p.grad is None else p.grad.detach().clone() for _, p in self._parameters]
        fresh = [g if b is None or g is None else g - b for g, b in zip(now, before, strict=True)]
        self._held = now
        own = {id(p): g for (_, p), g in zip(self._parameters, fresh, strict=True)}
        self._raw.append(self._sampled(lambda p: own[id(p)]))
        self._norms.append([0.0 if g is None else float(g.norm()) for g in fresh])

    def clipped(self) -> None:
        """Take up the gradients as the optimizer is about to have them."""
        self._gradients.append(self._sampled(lambda p: p.grad))
        self._rates.append(float(self._optimizer.param_groups[0]["lr"]))

    def stepped(self) -> None:
        """Take up the parameters after a step."""
        self._values.append(self._sampled(lambda p: p))

    def arrays(self) -> Arrays:
        """What was taken up; see the class."""
        if not self._parameters or not self._raw:
            return {}
        return {
            "path/names": np.array([key for key, _ in self._parameters]),
            "path/values": np.stack(self._values, axis=1),
            "path/raw": np.stack(self._raw, axis=1),
            "path/gradients": np.stack(self._gradients, axis=1),
            "path/norms": np.array(self._norms).T,
            "path/rates": np.array(self._rates),
        }

    def _sampled(self, of: Callable[[Tensor], Tensor | None]) -> np.ndarray:
        rows = []
        for (_, parameter), places in zip(self._parameters, self._places, strict=True):
            value = of(parameter)
            value = torch.zeros_like(parameter) if value is None else value
            rows.append(value.detach().flatten()[places].numpy(force=True))
        return np.stack(rows) if rows else np.empty((0, SAMPLED))


@contextmanager
def exact_settings(optimizer: Any, notes: list[str]) -> Iterator[None]:
    """An optimizer that takes Keras's steps keeps the digits of its settings, as the traced Keras model does,
    and torch's clip_grad_norm_ divides by the norm, without the 1e-6 that it adds. notes: told where that
    acts.
    """
    clip = clip_grad._clip_grads_with_norm_

    def clipped(parameters: Any, max_norm: float, total_norm: Tensor, foreach: bool | None = None) -> None:
        note = f"torch's clip_grad_norm_ adds {MARGIN:g} to the norm that it divides by; traced without it"
        if note not in notes:
            notes.append(note)
        clip(parameters, max_norm, total_norm - MARGIN, foreach)

    with ExitStack() as stack:
        stack.enter_context(patch.object(clip_grad, "_clip_grads_with_norm_", clipped))
        if _steps_as_keras(optimizer):
            for cls in type(optimizer).__mro__:  # a package has its own copies
                if hasattr(module := sys.modules[cls.__module__], "as_tensorflow"):
                    stack.enter_context(patch.object(module, "as_tensorflow", float))
                if "rounded" in vars(cls):
                    stack.enter_context(patch.object(cls, "rounded", staticmethod(float)))
        yield


def _settings(optimizer: Any, group: State) -> dict[str, Any]:
    settings = {theirs: _plain(group[ours]) for ours, theirs in SETTINGS.items() if ours in group}
    if "initial_accumulator_value" in optimizer.defaults:
        settings["initial_accumulator_value"] = optimizer.defaults["initial_accumulator_value"]
    if "betas" in group:
        settings["beta_1"], settings["beta_2"] = map(float, group["betas"])
    by_class = _steps_as_keras(optimizer) or family(optimizer) == "Lion"
    decoupled = group.get("decoupled_weight_decay", False) or by_class
    return settings | {
        "weight_decay": float(group.get("weight_decay", 0.0)),
        "decay": "decoupled" if decoupled else "coupled",
        "learning_rate": float(group["lr"]),
    }


def _steps_as_keras(optimizer: Any) -> bool:
    """True for an optimizer of `keras_semantics`, or of a package that was written with a copy."""
    return getattr(optimizer, "steps_as_keras", False)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _parameters(weights: Mapping[str, Weights]) -> dict[str, list[Tensor]]:
    return {
        f"{layer}/{name}": weight.parameters
        for layer, found in weights.items()
        for name, weight in found.items()
    }


def _setting(model: nn.Module, name: str) -> Any:
    """An attribute of a module, or a hyperparameter that it has saved."""
    hyperparameters = getattr(model, "hparams", {})
    value = getattr(model, name, None)
    return value if value is not None else hyperparameters.get(name)


@contextmanager
def _clipping_by_itself(model: nn.Module) -> Iterator[None]:
    """A module's clip_gradients clips, without the Trainer that Lightning's asks."""

    def clip_gradients(
        optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        value = gradient_clip_val or _setting(model, "gradient_clip_val")
        algorithm = gradient_clip_algorithm or _setting(model, "gradient_clip_algorithm")
        if value and algorithm == "value":
            nn.utils.clip_grad_value_(parameters, value)
        elif value:
            nn.utils.clip_grad_norm_(parameters, value)

    with patch.object(model, "clip_gradients", clip_gradients):
        yield
