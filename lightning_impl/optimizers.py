"""The optimizers of `experiment.optimizers` in torch, and what they keep of every weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from experiment.optimizers import Name, Setting
from lightning_impl.keras_semantics import SGD, Adam, AdamW

OPTIMIZERS: dict[Name, type[torch.optim.Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
# torch's names of what it keeps of every parameter, by slot; of its own optimizers, too.
MOMENTS = {"momentums": "exp_avg", "velocities": "exp_avg_sq"}
KEYS: dict[type[torch.optim.Optimizer], dict[str, str]] = {
    torch.optim.Adam: MOMENTS,
    torch.optim.NAdam: MOMENTS,
    torch.optim.SGD: {"momentums": "momentum_buffer"},
}


def build_optimizer(
    name: Name, parameters: Iterable[Tensor], learning_rate: float, settings: Mapping[str, Setting]
) -> torch.optim.Optimizer:
    """The named optimizer of these parameters; settings: those of its record."""
    return OPTIMIZERS[name](parameters, lr=learning_rate, **settings)  # type: ignore[call-arg]


def slots(optimizer: torch.optim.Optimizer) -> dict[str, dict[Tensor, Tensor]]:
    """What an optimizer keeps, by slot and parameter, copied and in Keras's units; of known kinds alone."""
    keys = _keys(optimizer)
    found = {
        slot: {
            parameter: optimizer.state[parameter][key] * _unit(optimizer, group)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if optimizer.state.get(parameter, {}).get(key) is not None
        }
        for slot, key in keys.items()
    }
    return {slot: values for slot, values in found.items() if values}


def restore_slots(
    optimizer: torch.optim.Optimizer, values: Mapping[str, Mapping[Tensor, Tensor]], iterations: int
) -> None:
    """Bring an optimizer of `OPTIMIZERS` to where it kept these values after so many steps.

    The values come back from `slots` to the last bit. Its parameters move: they are to be loaded afterwards.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # torch makes its state
    optimizer.zero_grad()
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        if "buffer_lr" in group:
            group["buffer_lr"] = 1.0
    for of_parameter in state["state"].values():
        if "step" in of_parameter:
            of_parameter["step"].fill_(iterations)
    optimizer.load_state_dict(state)
    for slot, key in _keys(optimizer).items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in values.get(slot, {}):
                    optimizer.state[parameter][key].copy_(values[slot][parameter] / _unit(optimizer, group))


def _keys(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    return next((keys for kind, keys in KEYS.items() if isinstance(optimizer, kind)), {})


def _unit(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    """Keras's velocity is -lr times torch's buffer."""
    if not isinstance(optimizer, torch.optim.SGD):
        return 1.0
    unit = group.get("buffer_lr")  # of `keras_semantics.SGD`
    return -float(group["lr"] if unit is None else unit)
