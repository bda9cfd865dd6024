"""BatchNorm's moving variance, which torch takes up unbiased: where that is nothing, and where it is not."""

from __future__ import annotations

import numpy as np

from parity.checks import Check, compare
from parity.ladder.tolerances import bound
from parity.traces.pair import Pair


def negligible(pair: Pair, layer: str) -> float | None:
    """By how much the unbiased variance of a layer is the larger, where no training in float32 sees it.

    n / (n - 1) - 1 for n values a channel, up to the bound of a float32 output; else None. The layers of this
    project itself have none: there the two are the same.
    """
    values = _values(pair, layer)
    excess = None if values < 2 else 1 / (values - 1)
    return excess if pair.foreign and excess is not None and excess <= bound("forward", "float32") else None


def check(pair: Pair, layer: str, stage: str, quantity: str, tolerance: float) -> Check | None:
    """The check of a moving variance against Keras's with Bessel's correction, where that is negligible.

    Torch's variance after `steps` steps is Keras's plus (Keras's - momentum ** steps * the initial one)
    / (n - 1). None where torch's variance is Keras's as it is, or the correction is not negligible.
    """
    both, initial = pair.both(stage, layer, "moving_variance"), pair.both("initial", layer, "moving_variance")
    excess = negligible(pair, layer)
    if both is None or initial is None or excess is None or both[0].shape != both[1].shape:
        return None
    keras, torch = both
    momentum = pair.keras.layer(layer)["settings"].get("momentum")
    if momentum is None or np.array_equal(keras, torch):
        return None
    steps = 1 if stage == "step" else len(pair.keras["losses"])
    corrected = keras + (keras - momentum**steps * initial[0]) * excess
    found = compare(quantity, corrected, torch, tolerance)
    return found if found.passed else None


def notes(pair: Pair) -> list[str]:
    """One that says where torch's unbiased variances were let pass, by how much, and the remedy."""
    taken = {
        layer: excess
        for layer in pair.names
        if "moving_variance" in pair.weights(layer)
        and check(pair, layer, "step", "", bound("one step", pair.precision)) is not None
        and (excess := negligible(pair, layer)) is not None
    }
    if not taken:
        return []
    layers = ", ".join(list(taken)[:3]) + (", ..." if len(taken) > 3 else "")
    return [
        f"torch's BatchNorm takes up the unbiased variance, up to {max(taken.values()):.1e} of it more than "
        f"Keras's (n / (n - 1) in {layers}): below float32's rounding of a layer, so let pass; "
        "lightning_impl.keras_semantics.BatchNorm takes up Keras's"
    ]


def _values(pair: Pair, layer: str) -> int:
    key = f"train/{layer}"
    return int(np.prod(pair.keras[key].shape[:-1])) if key in pair.keras else 0
