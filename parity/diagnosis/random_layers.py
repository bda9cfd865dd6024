"""Layers that draw in training: switched off on both sides, and missed where only one side has them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from parity.diagnosis.patterns import Explanation
from parity.traces.pair import Pair

Layer = dict[str, Any]
QUANTITY = "layers that draw in training"  # of the check that none stands on one side alone
RATES = ("rate", "stddev")
KINDS = re.compile(
    r"((Spatial|Alpha|Gaussian)?Dropout([123]D)?|GaussianNoise|StochasticDepth|DropPath|Random\w+"
    r"|RandAugment|AugMix|CutMix|MixUp)"
)


def drawing(layers: Sequence[Layer]) -> list[Layer]:
    """Those of a structure's layers that draw in training by more than nothing."""
    return [layer for layer in layers if KINDS.fullmatch(layer["kind"]) and any(_rates(layer))]


def alone(pair: Pair) -> list[tuple[str, Layer]]:
    """The drawing layers that one side alone has, by side (Keras, torch): more of their kind than the other.

    One that draws in evaluation, too, is of another kind than one that does not. Data augmentation in the
    model is among them: where the other side does it in its data pipeline, that cannot be seen.
    """
    sides = {"Keras": drawing(pair.keras.layers), "torch": drawing(pair.torch.layers)}
    counts = {side: Counter(map(_kind, layers)) for side, layers in sides.items()}
    left = {"Keras": pair.matching.unmatched_keras, "torch": pair.matching.unmatched_torch}
    found = []
    for side, other in (("Keras", "torch"), ("torch", "Keras")):
        more = counts[side] - counts[other]
        for layer in sorted(sides[side], key=lambda one: one["name"] not in left[side]):
            if more[_kind(layer)] > 0:
                more[_kind(layer)] -= 1
                found.append((side, layer))
    return found


def explain(pair: Pair) -> Explanation | None:
    """Which layers one side alone has."""
    always = [(side, layer) for side, layer in alone(pair) if layer["settings"].get("evaluating")]
    if always:
        side, layer = always[0]
        return Explanation(
            f"{side}'s {layer['kind']} acts in evaluation, too",
            layer["name"],
            "F.dropout(x, p, self.training)" if side == "torch" else "leave it to act in training alone",
        )
    causes = {f"{layer['kind']} stands on {side}'s side alone": side for side, layer in alone(pair)}
    if not causes:
        return None
    others = {"torch's module" if side == "Keras" else "the Keras model" for side in causes.values()}
    return Explanation(
        "; ".join(causes),
        "layers that draw in training were switched off to compare: with them the two train otherwise",
        f"let {' and '.join(sorted(others))} do the same in training, or leave it out: what a data pipeline "
        "does is not seen",
    )


def notes(pair: Pair) -> list[str]:
    """One that says which kinds of layers were switched off on both sides."""
    kinds = [{layer["kind"] for layer in drawing(side.layers)} for side in (pair.keras, pair.torch)]
    both = sorted(kinds[0] & kinds[1])
    if not both:
        return []
    act = (
        "acts in training alone, by its own draws"
        if len(both) == 1
        else "act in training alone, by own draws"
    )
    return [f"{', '.join(both)} {act}: switched off on both sides"]


def _kind(layer: Layer) -> tuple[str, bool]:
    return layer["kind"], bool(layer["settings"].get("evaluating"))


def _rates(layer: Layer) -> list[float]:
    """What a layer draws by; one that has no rate always draws."""
    rates = [float(value) for name in RATES if isinstance(value := layer["settings"].get(name), int | float)]
    return rates or [1.0]
