"""Penalties on the weights: in Keras's loss, in torch's, or as weight decay in torch's optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from parity.diagnosis.optimizer_steps import complete
from parity.diagnosis.patterns import LEFT, Explanation
from parity.traces.pair import Pair

NOISE = 1e-10  # of a layer's largest gradient: below it two gradients are the same


class Factors(NamedTuple):
    """By how much torch's factors of sum(w ** 2) and of sum(|w|) are above Keras's, for one weight."""

    l2: float
    l1: float


def coupled(pair: Pair) -> dict[str, float]:
    """The weight decay that torch's optimizer adds to the gradient of each weight, by Keras's name."""
    facts, factors = pair.torch.optimizer, {}
    if not facts:
        return {}
    for layer, torch_layer in pair.names.items():
        for weight in pair.weights(layer):
            settings = complete(facts, f"{torch_layer}/{weight}")
            if settings["decay"] == "coupled" and f"gradient/{torch_layer}/{weight}" in pair.torch:
                factors[f"{layer}/{weight}"] = settings["weight_decay"]
    return {key: factor for key, factor in factors.items() if factor}


def as_decay(pair: Pair) -> dict[str, np.ndarray]:
    """Torch's gradients with the coupled weight decay in them, where Keras has L2 penalties in their place.

    By `layer/weight`; empty where one side has none: the two are then no ways of doing the same.
    """
    if not pair.foreign or not pair.keras.penalties or not are_decay(pair):
        return {}
    factors, gradients = coupled(pair), {}
    for key, factor in factors.items():
        layer, _, weight = key.rpartition("/")
        both, initial = pair.both("gradient", layer, weight), pair.both("initial", layer, weight)
        if both is not None and initial is not None and both[0].shape == both[1].shape:
            gradients[key] = both[1] + factor * initial[0]
    return gradients


def are_decay(pair: Pair) -> bool:
    """Whether torch's coupled weight decay is Keras's L2 penalty, weight by weight."""
    factors, theirs = coupled(pair), pair.keras.penalties
    return factors.keys() == theirs.keys() and all(
        not found.get("l1") and np.isclose(factors[key], 2 * found.get("l2", 0.0), rtol=1e-9)
        for key, found in theirs.items()
    )


def notes(pair: Pair) -> list[str]:
    """One that says where a penalty in one side's loss is a decay in the other's optimizer."""
    if not are_decay(pair) or not pair.keras.penalties:
        return []
    return [
        f"Keras's L2 penalties are torch's weight_decay in {pair.torch.optimizer['class']}, twice their "
        "factor: the steps are the same, the losses that are told differ by the penalty"
    ]


def explain(pair: Pair) -> Explanation | None:
    """The penalty that parts two losses or their gradients, None where something else does."""
    apart = _factors(pair)
    if not apart:
        return _of_outputs(pair)
    theirs = {key: found for key, found in pair.keras.penalties.items() if key in apart}
    left_out = all(
        np.isclose(apart[key].l2, -found.get("l2", 0.0), rtol=1e-3, atol=1e-12)
        and np.isclose(apart[key].l1, -found.get("l1", 0.0), rtol=1e-3, atol=1e-12)
        for key, found in theirs.items()
    )
    named = "; ".join(f"{key}: {_told(factors)}" for key, factors in list(apart.items())[:3]) + (
        "; ..." if len(apart) > 3 else ""
    )
    if theirs.keys() == apart.keys() and left_out:
        return _left_out(pair, theirs, named)
    norm = " and ".join(
        word
        for word, which in (("L2", "l2"), ("L1", "l1"))
        if any(abs(getattr(f, which)) > 0 for f in apart.values())
    )
    if not theirs:
        return Explanation(
            f"torch's loss holds an {norm} penalty that Keras's has not",
            f"torch's gradients have it: {named}",
            "leave it out, or give Keras's layers a regularizer",
        )
    own = ", ".join(f"{key}: {_told_keras(found)}" for key, found in list(theirs.items())[:3])
    return Explanation(
        f"the {norm} penalty has another factor",
        f"torch's above Keras's by {named}; Keras's are {own}",
        "add l2 * w.square().sum() and l1 * w.abs().sum() with Keras's factors, for the same weights",
    )


def _of_outputs(pair: Pair) -> Explanation | None:
    """A penalty on what layers put out, which torch's loss leaves out."""
    layers = [key for key in pair.keras.penalties if key in pair.names]
    if not layers or "penalty" not in pair.keras:
        return None
    penalty = float(pair.keras["penalty"] - pair.keras["penalties"][0])
    if abs(float(pair.keras["loss"] - pair.torch["loss"]) - penalty) > LEFT * abs(penalty):
        return None
    return Explanation(
        "torch's loss leaves out Keras's penalty on outputs (activity_regularizer)",
        f"it is lower by that of {', '.join(layers)}, {penalty:.4g}",
        "in training_step add the factor times output.square().sum() (or .abs().sum()) over the batch's size",
    )


def _left_out(pair: Pair, theirs: Mapping[str, Mapping[str, float]], named: str) -> Explanation:
    facts = pair.torch.optimizer
    norm = (
        "L1L2"
        if any(f.get("l1") and f.get("l2") for f in theirs.values())
        else ("L1" if any(f.get("l1") for f in theirs.values()) else "L2")
    )
    settings = complete(facts) if facts else {"weight_decay": 0.0, "decay": ""}
    decay, how = settings["weight_decay"], settings["decay"]
    evidence = f"Keras's gradients have it and torch's have not: {named}"
    first, factors = next(iter(theirs.items()))
    squared = "in training_step add l2 * w.square().sum() (or l1 * w.abs().sum()) of the same weights"
    if not decay:
        return Explanation(f"torch's loss leaves out Keras's {norm} penalty", evidence, squared)
    if how == "coupled":
        place = f"coupled in {facts['class']} (torch)"
        evidence += f"; torch adds {decay:g} * w to the gradient of every weight it decays"
    else:
        place = f"decoupled in {facts['class']} (torch), which moves the weights and no gradient"
    change = squared + ", with weight_decay=0"
    if norm == "L2" and how == "coupled":
        change += (
            f"; or weight_decay={2 * factors['l2']:g} (twice Keras's factor) for {first} and the like alone"
        )
    return Explanation(f"an {norm} penalty in the loss (Keras) for weight_decay {place}", evidence, change)


def _factors(pair: Pair) -> dict[str, Factors]:
    """The penalties that part the gradients, by `layer/weight`; empty where they do not explain all of it."""
    apart: dict[str, Factors] = {}
    for layer in pair.names:
        for weight in pair.weights(layer):
            both, initial = pair.both("gradient", layer, weight), pair.both("initial", layer, weight)
            if both is None or initial is None:
                continue
            if both[0].shape != both[1].shape:
                return {}
            keras, torch = both
            difference, value = (torch - keras).ravel(), initial[0].ravel()
            scale = float(np.abs(keras).max(initial=0.0))
            largest = float(np.abs(difference).max(initial=0.0))
            if not largest > NOISE * scale:
                continue
            columns = np.stack([2 * value, np.sign(value)], axis=1)
            fitted, *_ = np.linalg.lstsq(columns, difference, rcond=None)
            if value.size < 3 or np.abs(columns @ fitted - difference).max() > LEFT * largest:
                return {}
            sizes = np.abs(fitted) * np.abs(columns).max(0)
            l2, l1 = (
                float(f) if size > LEFT * largest else 0.0 for f, size in zip(fitted, sizes, strict=True)
            )
            apart[f"{layer}/{weight}"] = Factors(l2, l1)
    return apart


def _told(factors: Factors) -> str:
    parts = [f"{factors.l2:+.4g} * sum(w ** 2)"] if factors.l2 else []
    parts += [f"{factors.l1:+.4g} * sum(|w|)"] if factors.l1 else []
    return " and ".join(parts)


def _told_keras(factors: Mapping[str, float]) -> str:
    return " and ".join(f"{name} {factors[name]:g}" for name in ("l1", "l2") if factors.get(name))
