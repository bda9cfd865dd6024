"""Causes of layers that are merged otherwise: by another function, with another sign, by the other gate."""

from __future__ import annotations

from parity.diagnosis.patterns import Explanation, explains
from parity.traces.pair import Pair

MERGES = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"}


def explain(layer: str, mode: str, pair: Pair) -> Explanation | None:
    """Why a layer that merges others, or the one after it, differs; None for another cause."""
    return _of_inputs(layer, mode, pair) or _of_another_kind(layer, pair)


def _of_inputs(layer: str, mode: str, pair: Pair) -> Explanation | None:
    """One of its inputs has another sign, or is 1 minus Keras's."""
    facts, both = pair.keras.layer(layer), pair.both(mode, layer)
    if both is None or facts["kind"] not in ("Add", "Multiply"):
        return None
    for name in facts["inputs"]:
        source = pair.keras.get(f"{mode}/{name}")
        if source.shape != both[0].shape:
            continue
        if facts["kind"] == "Multiply" and explains(*both, source - both[0]):
            return Explanation(
                "torch multiplies by 1 minus what Keras multiplies by: a gate's two branches are exchanged",
                f"{name} times that gives torch's output",
                "exchange what the gate and what 1 minus the gate is multiplied with",
            )
        if facts["kind"] == "Add" and explains(*both, 2 * source - both[0]):
            return Explanation(
                "torch subtracts what Keras adds", f"{name} minus the rest gives torch's output", "add it"
            )
    return None


def _of_another_kind(layer: str, pair: Pair) -> Explanation | None:
    """Right before it each side merges, but otherwise."""
    alone = pair.alone_before(layer)
    theirs = {pair.keras.layer(name)["kind"] for name in alone[0]}
    ours = {pair.torch.layer(name)["kind"] for name in alone[1]}
    if len(theirs) != 1 or len(ours) != 1 or not theirs | ours <= MERGES or theirs == ours:
        return None
    (keras,), (torch,) = theirs, ours
    return Explanation(
        f"a layer of another kind, {torch} for Keras's {keras}",
        f"Keras's {alone[0][0]}, torch's {alone[1][0]}",
        f"merge them as Keras's {keras} does",
    )
