"""The steps of Keras's and torch's optimizers in numpy, by one set of settings that says how the two differ.

From keras/src/optimizers/*.py and torch/optim/*.py. Every rule is for some elements of one weight, which all
of these optimizers step by themselves; what looks at a whole gradient, its norm, is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Settings = Mapping[str, Any]
State = dict[str, Any]
# gradient, state, settings, learning rate, step from 1: what is taken from the weight
Rule = Callable[[np.ndarray, State, Settings, float, int], np.ndarray]

# How each side writes a family's step, and the settings that it has no name for.
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "Adam": {"keras": {"epsilon_place": "before"}, "torch": {"epsilon_place": "after"}},
    "SGD": {
        "keras": {"momentum_form": "velocity", "dampening": 0.0},
        "torch": {"momentum_form": "buffer"},
    },
    "RMSprop": {
        "keras": {"epsilon_place": "inside", "momentum_form": "velocity"},
        "torch": {"epsilon_place": "outside", "momentum_form": "buffer"},
    },
    "Adagrad": {
        "keras": {"epsilon_place": "inside", "lr_decay": 0.0},
        "torch": {"epsilon_place": "outside"},
    },
    "Adadelta": {"keras": {}, "torch": {}},
    "Adamax": {"keras": {"epsilon_place": "added"}, "torch": {"epsilon_place": "within"}},
    "Nadam": {"keras": {"momentum_decay": 1.0}, "torch": {}},
    "Lion": {"keras": {}, "torch": {}},
}
# What every optimizer may have; a setting is left out where it is this.
NEUTRAL: dict[str, Any] = {
    "weight_decay": 0.0,
    "decay": "decoupled",
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "clip_margin": 0.0,
    "gradient_accumulation_steps": 1,
    "ema_overwrite_frequency": None,
    "ema_momentum": 0.99,
    "learning_rate_factor": 1.0,
    "amsgrad": False,
    "momentum": 0.0,
    "nesterov": False,
    "centered": False,
    "maximize": False,
}


@dataclass(frozen=True)
class Way:
    """Some elements of a weight before the first step, (E,), and what its steps are given.

    gradients: (steps, E), before any clipping. norms, all_norms: (steps,) of the weight's whole gradient, and
    of all weights' together. rates: (steps,) learning rates.
    """

    start: np.ndarray
    gradients: np.ndarray
    norms: np.ndarray
    all_norms: np.ndarray
    rates: np.ndarray


def complete(facts: Mapping[str, Any], weight: str = "") -> dict[str, Any]:
    """All settings of an optimizer as a trace's `facts` have it, of one weight (`layer/name`) or of most."""
    form = FORMS.get(facts["family"], {}).get(facts["form"], {})
    own = {**facts["settings"], **facts["overrides"].get(weight, {})}
    return {**NEUTRAL, **form, **{name: value for name, value in own.items() if value is not None}}


def walk(family: str, settings: Settings, way: Way) -> np.ndarray:
    """The elements before the first step and after each, (steps + 1, E)."""
    rule, every = RULES[family], int(settings["gradient_accumulation_steps"] or 1)
    value, state, values, gathered = way.start, {}, [way.start], 0.0
    for index, gradient in enumerate(way.gradients):
        gathered = gathered + gradient
        if (index + 1) % every == 0:
            gradient, gathered = gathered / every, 0.0
            step = (index + 1) // every
            value = _step(rule, value, gradient, state, settings, way, index, step)
            value = _averaged(value, state, settings, step)
        values.append(value)
    return np.stack(values)


def _step(
    rule: Rule,
    value: np.ndarray,
    gradient: np.ndarray,
    state: State,
    settings: Settings,
    way: Way,
    index: int,
    step: int,
) -> np.ndarray:
    rate = float(way.rates[index]) * settings["learning_rate_factor"]
    gradient = -gradient if settings["maximize"] else gradient
    gradient = _clipped(gradient, settings, float(way.norms[index]), float(way.all_norms[index]))
    decay = settings["weight_decay"]
    if settings["decay"] == "coupled":
        gradient = gradient + decay * value
    else:
        value = value - rate * decay * value
    return value - rule(gradient, state, settings, rate, step)


def _clipped(gradient: np.ndarray, settings: Settings, norm: float, all_norms: float) -> np.ndarray:
    margin = settings["clip_margin"]
    if limit := settings["clipnorm"]:
        return gradient * min(1.0, limit / (norm + margin))
    if limit := settings["global_clipnorm"]:
        return gradient * min(1.0, limit / (all_norms + margin))
    if limit := settings["clipvalue"]:
        return np.clip(gradient, -limit, limit)
    return gradient


def _averaged(value: np.ndarray, state: State, settings: Settings, step: int) -> np.ndarray:
    """Keras's average of the weights, which takes their place every so many steps."""
    if not (every := settings["ema_overwrite_frequency"]):
        return value
    momentum = settings["ema_momentum"] if step > 1 else 0.0
    state["average"] = momentum * state.get("average", 0.0) + (1 - momentum) * value
    return state["average"] if step % every == 0 else value


def _moments(gradient: np.ndarray, state: State, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    beta_1, beta_2 = settings["beta_1"], settings["beta_2"]
    state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * gradient
    state["v"] = beta_2 * state.get("v", 0.0) + (1 - beta_2) * gradient**2
    return state["m"], state["v"]


def adam(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """Kingma and Ba 2015; amsgrad: Reddi et al. 2018."""
    m, v = _moments(gradient, state, settings)
    if settings["amsgrad"]:
        v = state["largest"] = np.maximum(state.get("largest", 0.0), v)
    first, second = (1 - settings[beta] ** step for beta in ("beta_1", "beta_2"))
    match settings["epsilon_place"]:
        case "before":
            return rate * np.sqrt(second) / first * m / (np.sqrt(v) + settings["epsilon"])
        case "uncorrected":
            return rate * m / (np.sqrt(v) + settings["epsilon"])
        case "inside":
            return rate * (m / first) / np.sqrt(v / second + settings["epsilon"])
    return rate * (m / first) / (np.sqrt(v / second) + settings["epsilon"])


def sgd(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """With Keras's momentum, which holds the learning rates of its steps, or torch's, which does not."""
    if not (momentum := settings["momentum"]):
        return rate * gradient
    dampened = (1 - settings["dampening"]) if step > 1 else 1.0
    scale = rate if settings["momentum_form"] == "velocity" else 1.0
    kept = state["momentum"] = momentum * state.get("momentum", 0.0) + scale * dampened * gradient
    taken = scale * gradient + momentum * kept if settings["nesterov"] else kept
    return taken if settings["momentum_form"] == "velocity" else rate * taken


def rmsprop(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """Hinton's lecture 6e; centered: Graves 2013."""
    rho, epsilon = settings["rho"], settings["epsilon"]
    spread = state["v"] = rho * state.get("v", 0.0) + (1 - rho) * gradient**2
    if settings["centered"]:
        mean = state["mean"] = rho * state.get("mean", 0.0) + (1 - rho) * gradient
        spread = spread - mean**2
    inside = settings["epsilon_place"] == "inside"
    moved = gradient / (np.sqrt(spread + epsilon) if inside else np.sqrt(spread) + epsilon)
    if not settings["momentum"]:
        return rate * moved
    scale = rate if settings["momentum_form"] == "velocity" else 1.0
    kept = state["momentum"] = settings["momentum"] * state.get("momentum", 0.0) + scale * moved
    return kept if settings["momentum_form"] == "velocity" else rate * kept


def adagrad(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """Duchi et al. 2011."""
    kept = state.get("sum", settings["initial_accumulator_value"]) + gradient**2
    state["sum"] = kept
    rate = rate / (1 + (step - 1) * settings["lr_decay"])
    if settings["epsilon_place"] == "inside":
        return rate * gradient / np.sqrt(kept + settings["epsilon"])
    return rate * gradient / (np.sqrt(kept) + settings["epsilon"])


def adadelta(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """Zeiler 2012."""
    rho, epsilon = settings["rho"], settings["epsilon"]
    state["v"] = rho * state.get("v", 0.0) + (1 - rho) * gradient**2
    moved = np.sqrt(state.get("moved", 0.0) + epsilon) / np.sqrt(state["v"] + epsilon) * gradient
    state["moved"] = rho * state.get("moved", 0.0) + (1 - rho) * moved**2
    return rate * moved


def adamax(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """Kingma and Ba 2015, section 7.1."""
    beta_1, beta_2, epsilon = (settings[name] for name in ("beta_1", "beta_2", "epsilon"))
    m = state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * gradient
    within = epsilon if settings["epsilon_place"] == "within" else 0.0
    norm = state["u"] = np.maximum(beta_2 * state.get("u", 0.0), np.abs(gradient) + within)
    return rate / (1 - beta_1**step) * m / (norm + epsilon - within)


def nadam(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """Dozat 2016; Keras's schedule of the momentum is that of a momentum_decay of 1."""
    m, v = _moments(gradient, state, settings)
    now, after = (
        settings["beta_1"] * (1 - 0.5 * 0.96 ** (t * settings["momentum_decay"])) for t in (step, step + 1)
    )
    product = state["product"] = state.get("product", 1.0) * now
    mean = after * m / (1 - product * after) + (1 - now) * gradient / (1 - product)
    return rate * mean / (np.sqrt(v / (1 - settings["beta_2"] ** step)) + settings["epsilon"])


def lion(gradient: np.ndarray, state: State, settings: Settings, rate: float, step: int) -> np.ndarray:
    """Chen et al. 2023."""
    beta_1, beta_2, m = settings["beta_1"], settings["beta_2"], state.get("m", 0.0)
    state["m"] = beta_2 * m + (1 - beta_2) * gradient
    return rate * np.sign(beta_1 * m + (1 - beta_1) * gradient)


RULES: dict[str, Rule] = {
    "Adam": adam,
    "SGD": sgd,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
    "Adadelta": adadelta,
    "Adamax": adamax,
    "Nadam": nadam,
    "Lion": lion,
}
